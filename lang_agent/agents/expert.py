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
    """

    asks_expert = True

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self._draws: dict[int, random.Random] = {}

    def begin(self, slot: int, seed: int) -> None:
        self._draws[slot] = random.Random(seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [
            follow_expert(seen, self._draws[slot], self.noise)
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
