"""MiniGrid's partial view, computed several times faster than by minigrid itself, cell for cell.

minigrid 3 builds the view by slicing, rotating and copying grids of objects and takes most of a
step's time for it. Here the cells are read where they stand and visibility is kept as one integer
per row. `tests/test_minigrid.py` compares the two on every registered level.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
from minigrid.core.grid import Grid
from minigrid.core.world_object import Wall, WorldObj
from minigrid.minigrid_env import MiniGridEnv

WALL = bytes(Wall().encode())
EMPTY = bytes((1, 0, 0))
VIEW = ("gen_obs", "gen_obs_grid", "get_view_exts")  # methods that make it
DIRECTIONS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # facing right, down, left, up


@cache
def _offsets(size: int, direction: int) -> list[list[tuple[int, int]]]:
    """Per view row, far to near, the world offset of each view column from the agent."""
    fx, fy = DIRECTIONS[direction]
    return [
        [
            (fx * (size - 1 - row) - fy * (column - size // 2),
             fy * (size - 1 - row) + fx * (column - size // 2))
            for column in range(size)
        ]
        for row in range(size)
    ]  # fmt: skip


def encode_view(env: MiniGridEnv) -> np.ndarray:
    """The (size, size, 3) uint8 image of what the agent sees, column first."""
    size = env.agent_view_size
    grid, width, height = env.grid.grid, env.grid.width, env.grid.height
    x, y = int(env.agent_pos[0]), int(env.agent_pos[1])
    offsets = _offsets(size, env.agent_dir)
    image = bytearray(3 * size * size)
    everything = (1 << size) - 1
    middle = size // 2
    seen = everything if env.see_through_walls else 1 << middle
    for row in range(size - 1, -1, -1):
        cells: list[WorldObj | bool | None] = [
            grid[cy * width + cx]
            if 0 <= (cx := x + dx) < width and 0 <= (cy := y + dy) < height
            else False  # outside the world: a wall
            for dx, dy in offsets[row]
        ]
        above = everything
        if not env.see_through_walls:
            seen, above = _spread(seen, cells, size)
        if row == size - 1:
            cells[middle] = env.carrying
        for column in range(size):
            if seen >> column & 1:
                cell = cells[column]
                at = 3 * (column * size + row)
                if cell is None:
                    image[at] = 1
                elif cell is False:
                    image[at : at + 3] = WALL
                else:
                    image[at : at + 3] = bytes(cell.encode())  # type: ignore[union-attr]
        seen = above
        if not seen:
            break
    return np.frombuffer(image, dtype=np.uint8).reshape(size, size, 3)


def _spread(seen: int, cells: list[Any], size: int) -> tuple[int, int]:
    """The cells seen in a row, and those seen from it in the row above, as bits.

    Sight passes from a seen, see-through cell to its neighbours and to the three cells above it,
    first left to right, then right to left (the order of minigrid's ``Grid.process_vis``).
    """
    above = 0
    clear = [cell is None or (cell is not False and cell.see_behind()) for cell in cells]
    for column in range(size - 1):
        if seen >> column & 1 and clear[column]:
            seen |= 2 << column
            above |= 3 << column
    for column in range(size - 1, 0, -1):
        if seen >> column & 1 and clear[column]:
            seen |= 1 << (column - 1)
            above |= 3 << (column - 1)
    return seen, above


def gen_obs(env: MiniGridEnv) -> dict[str, Any]:
    """What ``MiniGridEnv.gen_obs`` returns."""
    if type(env.grid) is not Grid:  # a grid with ways of its own
        return MiniGridEnv.gen_obs(env)
    return {"image": encode_view(env), "direction": env.agent_dir, "mission": env.mission}


def use_fast_view(env: Any) -> None:
    """Make this environment object compute its view here, unless its class has its own way."""
    if isinstance(env, MiniGridEnv) and all(
        getattr(type(env), name) is getattr(MiniGridEnv, name) for name in VIEW
    ):
        vars(env)["gen_obs"] = partial(gen_obs, env)
