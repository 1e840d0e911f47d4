"""Agents that know nothing: what others are compared with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lang_agent.episode import Agent, Decision, TextObservation


class RandomAgent(Agent):
    """Every admissible phrase equally likely."""

    def __init__(self) -> None:
        self._draws: dict[int, random.Random] = {}

    def begin(self, slot: int, seed: int) -> None:
        self._draws[slot] = random.Random(seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [
            Decision(self._draws[slot].choice(seen.actions or ("",)))
            for slot, seen in zip(slots, observations, strict=True)
        ]


class ConstantAgent(Agent):
    """The same answer to everything."""

    def __init__(self, action: str) -> None:
        self.action = action

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self.action) for _ in observations]
