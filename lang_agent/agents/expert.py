"""The world's own expert as an agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gymnasium
import torch

from lang_agent.episode import NO_LABEL, Decision, TextObservation
from lang_agent.errors import LangAgentError
from lang_agent.text_env.world import ExpertLostError


class BotAgent:
    """The world's own expert, where it has one (BabyAI's bot).

    Args:
        noise: the share of its actions that are replaced by random ones, so that the states are
            seen from which one recovers. A decision's ``choice`` is what the expert wanted.
        generator: of the noise.
    """

    def __init__(self, noise: float = 0.0, generator: torch.Generator | None = None) -> None:
        self.noise, self.generator = noise, generator or torch.Generator().manual_seed(0)
        self._experts: dict[int, Callable[[str | None], str]] = {}
        self._taken: dict[int, str | None] = {}

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        expert = getattr(env.unwrapped, "expert_action", None)
        if expert is None:
            raise LangAgentError("This environment has no expert for the bot to follow.")
        self._experts[slot], self._taken[slot] = expert, None

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        decisions = []
        for slot, seen in zip(slots, observations, strict=True):
            action, choice = self.choose(slot, seen)
            self.took(slot, action)
            decisions.append(Decision(action, choice=choice))
        return decisions

    def choose(self, slot: int, observation: TextObservation) -> tuple[str, int]:
        """What to do, and the index of what the expert wants; ``NO_LABEL`` once it is lost."""
        phrases = observation.actions or ("",)
        choice = self.wanted(slot, phrases)
        lost = choice == NO_LABEL
        if lost or (self.noise and torch.rand((), generator=self.generator) < self.noise):
            return phrases[int(torch.randint(len(phrases), (), generator=self.generator))], choice
        return phrases[choice], choice

    def wanted(self, slot: int, phrases: Sequence[str]) -> int:
        """The index of the phrase that the expert wants now; ``NO_LABEL`` once it is lost."""
        if slot not in self._experts:
            return NO_LABEL
        try:
            phrase = self._experts[slot](self._taken[slot])
        except ExpertLostError:
            del self._experts[slot]
            return NO_LABEL
        return phrases.index(phrase) if phrase in phrases else NO_LABEL

    def took(self, slot: int, action: str) -> None:
        """Tell the expert what was really done."""
        self._taken[slot] = action
