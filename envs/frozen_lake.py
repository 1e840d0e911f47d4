"""Gymnasium's FrozenLake in words, as small as a world can be: how it reads, and its phrases."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.registration import register as register_env

from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World

from .toy_text import neighbours, place, places, planner, toy_text

ICE = {b"S": "ice", b"F": "ice", b"H": "a hole", b"G": "the goal", b"#": "the shore"}


def render(cell: int, env: Any) -> dict[str, Any]:
    lake, (row, column) = env.unwrapped.desc, divmod(cell, env.unwrapped.ncol)
    shore = np.pad(lake, 1, constant_values=b"#")
    lines = [f"You stand {place(row, column)}", f"The goal is {places(lake == b'G')}"]
    lines.append(f"Holes are {places(lake == b'H')}")
    lines += neighbours(row, column, lambda r, c: ICE[shore[r + 1, c + 1]])
    ice = "slippery" if env.unwrapped.spec.kwargs.get("is_slippery", True) else "frozen"
    return {"mission": f"cross the {ice} lake to the goal", "descriptions": lines}


PHRASES = {"go west": 0, "go south": 1, "go east": 2, "go north": 3}
LAKE = World(PHRASES, {"places": render}, expert=planner)


def make(**arguments: Any) -> TextEnv:
    return toy_text("FrozenLake", LAKE, arguments)


def register() -> None:
    register_env("TextFrozenLake-v0", entry_point=f"{__name__}:make")
