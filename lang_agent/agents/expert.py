"""The world's own expert as an agent."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lang_agent.episode import Agent, Decision, TextObservation


class ExpertAgent(Agent):
    """Says what the world's expert would say, where it has one (BabyAI's bot).

    Once the expert is lost, actions are random ones.

    Args:
        noise: the share of its actions that are replaced by random ones, so that the states are
            seen from which one recovers.
        varied: each episode has a share of its own instead, u^2 ``noise`` with u uniform in (0, 1):
            many of few strays and few of many.
    """

    asks_expert = True

    def __init__(self, noise: float = 0.0, *, varied: bool = False) -> None:
        self.noise, self.varied = noise, varied
        self._draws: dict[int, random.Random] = {}
        self._shares: dict[int, float] = {}

    def begin(self, slot: int, seed: int) -> None:
        self._draws[slot] = random.Random(seed)
        share = self._draws[slot].random() ** 2 if self.varied else 1.0
        self._shares[slot] = share * self.noise

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [
            follow_expert(seen, self._draws[slot], self._shares[slot])
            for slot, seen in zip(slots, observations, strict=True)
        ]


def follow_expert(seen: TextObservation, draw: random.Random, noise: float = 0.0) -> Decision:
    """The expert's phrase; a random one in its place with probability ``noise``, and where the
    expert is lost."""
    phrases = seen.actions or ("",)
    strays = noise > 0 and draw.random() < noise
    wanted = seen.expert
    if seen.actions is None and wanted is not None and not strays:
        return Decision(wanted)
    if strays or wanted is None or wanted not in phrases:
        wanted = draw.choice(phrases)
    return Decision(wanted, phrases.index(wanted))
