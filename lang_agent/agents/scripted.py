"""Agents that know nothing: what others are compared with."""

from __future__ import annotations

import random
from collections.abc import Sequence

import gymnasium

from lang_agent.episode import Decision, TextObservation


class RandomAgent:
    """Every admissible phrase equally likely."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = random.Random(seed)

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        pass

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self._draw.choice(seen.actions or ("",))) for seen in observations]


class ConstantAgent:
    """The same answer to everything."""

    def __init__(self, action: str) -> None:
        self.action = action

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        pass

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self.action) for _ in observations]
