"""What the worlds of Gymnasium's toy text share here: how they are made, and an expert.

The expert is value iteration over the environment's own table of transitions (Bellman 1957), for
the steps that are left, so that it does the best that can be done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import gymnasium
import numpy as np
from gymnasium.envs.registration import find_highest_version

from lang_agent.errors import LangAgentError
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert, World

DISCOUNT = 0.9999  # just below 1: of ways that are equally sure, the shortest
CLOSE = 1e-9
MOST_STEPS = 1000  # planned for where an episode has no limit
DIRECTIONS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}

Table = Mapping[int, Mapping[int, list[tuple[float, int, float, bool]]]]
"""State -> action -> (probability, next state, reward, whether the episode ends there)."""


def toy_text(
    name: str, world: World, arguments: dict[str, Any], limit: int | None = None
) -> TextEnv:
    """The newest version that Gymnasium has of its environment ``name``, in words. What is no text
    option goes to it; ``max_steps`` is when an episode is cut off (``limit``, or else as Gymnasium
    has it, unless it is given)."""
    options = take_text_options(arguments)
    steps = arguments.pop("max_steps", limit)
    if steps is not None and (type(steps) is not int or steps < 1):
        raise LangAgentError(f"max_steps={steps!r} must be a whole number of at least 1.")
    env_id = f"{name}-v{find_highest_version(None, name)}"
    env = gymnasium.make(env_id, max_episode_steps=steps, disable_env_checker=True, **arguments)
    return TextEnv(env, world, **options)


def place(row: int, column: int) -> str:
    """Rows are counted from the north, columns from the west, both from 1."""
    return f"in row {row + 1}, column {column + 1}"


def places(where: np.ndarray) -> str:
    """All places where an array of the map holds."""
    return "; ".join(place(row, column) for row, column in np.argwhere(where)) or "nowhere"


def neighbours(row: int, column: int, name: Callable[[int, int], str]) -> list[str]:
    """What lies next to a cell, a sentence for each direction."""
    return [
        f"To the {direction} is {name(row + down, column + right)}"
        for direction, (down, right) in DIRECTIONS.items()
    ]


def planner(env: gymnasium.Env, wording: Wording) -> Expert:
    """An expert that knows the table ``P`` of the environment."""
    world: Any = env.unwrapped
    limit = env.spec.max_episode_steps if env.spec is not None else None
    if world not in _PLANS:
        _PLANS[world] = best_actions(world.P, limit or MOST_STEPS)
    return Planner(world, _PLANS[world], limit or MOST_STEPS)


_PLANS: WeakKeyDictionary[gymnasium.Env, np.ndarray] = WeakKeyDictionary()


@dataclass
class Planner:
    """Follows a plan of what is best with so many steps left."""

    world: Any
    plan: np.ndarray
    left: int

    def __call__(self, last_action: Any) -> int:
        if last_action is not None:
            self.left -= 1
        row = min(max(self.left, 1), len(self.plan))
        return int(self.plan[row - 1, self.world.s])


def best_actions(table: Table, steps: int) -> np.ndarray:
    """The best action of every state by value iteration: of the first row with one step left, of
    the last with ``steps``, or with any number once more of them make no difference."""
    most = max(len(outcomes) for row in table.values() for outcomes in row.values())
    shape = (len(table), len(table[0]), most)
    chances, rewards, following = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=int)
    for state, row in table.items():
        for action, outcomes in row.items():
            for at, (chance, after, reward, ended) in enumerate(outcomes):
                chances[state, action, at] = chance
                rewards[state, action, at] = reward
                following[state, action, at] = len(table) if ended else after
    paid = (chances * rewards).sum(axis=2)
    values = np.zeros(len(table) + 1)  # the last is of what comes after the end
    plan: list[np.ndarray] = []
    for _ in range(steps):
        gains = paid + DISCOUNT * (chances * values[following]).sum(axis=2)
        plan.append(gains.round(9).argmax(axis=1))  # of equal ones the first, despite rounding
        change = np.abs(gains.max(axis=1) - values[:-1]).max()
        values[:-1] = gains.max(axis=1)
        if change < CLOSE:
            break
    return np.stack(plan)
