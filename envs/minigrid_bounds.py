"""Levels that cannot be made or drawn end in a sentence: minigrid itself draws for ever, in
silence, or finds out about an argument when it is first used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from minigrid.minigrid_env import MiniGridEnv

from lang_agent.errors import LangAgentError

MOST_DRAWS = 3_000_000  # of a level; minigrid's own take some two thousand, crowded ones more


def check_numbers(level: type, arguments: Mapping[str, Any]) -> None:
    """Refuse what is no whole number where the level's own value is one.

    Raises :class:`LangAgentError`.
    """
    for name, value in arguments.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if name == "max_steps" and whole and value < 1:
            raise LangAgentError(f"max_steps={value} must be 1 or more.")
        for kind in level.__mro__:
            own = inspect.signature(kind).parameters.get(name) if kind is not object else None
            if own is not None and type(own.default) is int and not whole:
                raise LangAgentError(
                    f"{name}={value!r} must be a number, as {level.__name__}'s own {own.default} "
                    "is."
                )


def bound_drawing(env: Any) -> None:
    """Make this environment object give up a level after ``MOST_DRAWS`` random draws."""
    if isinstance(env, MiniGridEnv):
        vars(env)["_draws"] = 0
        vars(env)["_rand_int"] = partial(_rand_int, env)
        vars(env)["reset"] = partial(_reset, env)


def _rand_int(env: Any, low: int, high: int) -> int:
    env._draws += 1
    if env._draws > MOST_DRAWS:
        name = env.spec.id if env.spec else type(env).__name__
        raise LangAgentError(
            f"No level of {name!r} could be drawn: none of {MOST_DRAWS:,} random draws led to one "
            "that keeps its rules. Ask for fewer things in it (num_dists), or for more room."
        )
    return type(env)._rand_int(env, low, high)


def _reset(env: Any, **kwargs: Any) -> Any:
    env._draws = 0
    return type(env).reset(env, **kwargs)
