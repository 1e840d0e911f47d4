"""Agents that know nothing: what others are compared with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lang_agent.episode import Agent, Decision, TextObservation


class RandomAgent(Agent):
    """Every admissible phrase equally likely."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = random.Random(seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self._draw.choice(seen.actions or ("",))) for seen in observations]


class ConstantAgent(Agent):
    """The same answer to everything."""

    def __init__(self, action: str) -> None:
        self.action = action

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self.action) for _ in observations]
