"""The world's own expert as an agent."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lang_agent.episode import Agent, Decision, TextObservation


class ExpertAgent(Agent):
    """Says what the world's expert would say, where it has one (BabyAI's bot).

    Once the expert is lost, actions are random ones.

    Args:
        noise: the share of its actions that are replaced by random ones, so that the states are
            seen from which one recovers.
        generator: of the noise.
    """

    asks_expert = True

    def __init__(self, noise: float = 0.0, generator: torch.Generator | None = None) -> None:
        self.noise, self.generator = noise, generator or torch.Generator().manual_seed(0)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [self.choose(seen) for seen in observations]

    def choose(self, seen: TextObservation) -> Decision:
        """The expert's phrase, or now and then a random one."""
        phrases = seen.actions or ("",)
        wanted = seen.expert
        lost = wanted is None or wanted not in phrases
        if lost or (self.noise and torch.rand((), generator=self.generator) < self.noise):
            wanted = phrases[int(torch.randint(len(phrases), (), generator=self.generator))]
        assert wanted is not None
        return Decision(wanted, choice=phrases.index(wanted))
