"""Gymnasium's CliffWalking in words (Sutton and Barto 2018, example 6.6): who steps off the cliff
loses 100 and stands at the start again; every other step costs 1."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.registration import register as register_env

from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World

from .toy_text import neighbours, place, planner, toy_text

ROWS, COLUMNS = 4, 12
START, GOAL = (3, 0), (3, 11)
LIMIT = 200  # Gymnasium's own has none, and a random walk falls off for ever


def render(cell: int, env: gymnasium.Env) -> dict[str, Any]:
    row, column = divmod(cell, COLUMNS)
    lines = [
        f"You stand {place(row, column)}",
        f"The goal is {place(*GOAL)}",
        f"The cliff is in row {ROWS}, columns 2 to {COLUMNS - 1}",
        *neighbours(row, column, _ground),
    ]
    return {"mission": "reach the goal without stepping off the cliff", "descriptions": lines}


def _ground(row: int, column: int) -> str:
    if not (0 <= row < ROWS and 0 <= column < COLUMNS):
        return "the edge of the world"
    if (row, column) == GOAL:
        return "the goal"
    return "the cliff" if row == START[0] and column > START[1] else "firm ground"


def _arrived(env: gymnasium.Env, reward: float, terminated: bool) -> bool:
    return terminated  # the goal pays nothing, and is the only end


WORLD = World(
    actions={"go north": 0, "go east": 1, "go south": 2, "go west": 3},
    renderers={"places": render},
    success=_arrived,
    expert=planner,
)


def make(**arguments: Any) -> TextEnv:
    """CliffWalking in words; ``is_slippery``, ``max_steps``."""
    return toy_text("CliffWalking", WORLD, arguments, LIMIT)


def register() -> None:
    register_env("TextCliffWalking-v0", entry_point=f"{__name__}:make")
