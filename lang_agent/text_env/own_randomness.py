"""For worlds that draw from the global generators: their seeds then settle their episodes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np

from lang_agent.seeding import derive


class OwnRandomness(gymnasium.Wrapper):
    """Gives an environment that draws from Python's ``random`` or from ``numpy.random`` generators
    of its own, which ``reset(seed=...)`` seeds.

    An environment should draw from ``self.np_random`` alone. One that draws from the global
    generators plays one seed differently from time to time, and differently beside others. Here the
    state of the global generators is exchanged for the environment's own during every reset and
    step, and put back after it.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._state = _state(None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._state = _state(derive(seed, "own randomness") % 2**32)
        with self._exchanged():
            return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with self._exchanged():
            return super().step(action)

    @contextmanager
    def _exchanged(self) -> Iterator[None]:
        outside = random.getstate(), np.random.get_state()
        _set(self._state)
        try:
            yield
        finally:
            self._state = random.getstate(), np.random.get_state()
            _set(outside)


def _state(seed: int | None) -> tuple[Any, Any]:
    """Of both generators, after this seed; without one, after a seed of chance."""
    return random.Random(seed).getstate(), np.random.RandomState(seed).get_state()


def _set(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
