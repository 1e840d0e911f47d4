"""Minigrid in the words of a map: by row and column, the whole of it, or as it is remembered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from lang_agent.text_env.wording import Wording

from .minigrid_renderers import seen
from .minigrid_view import DIRECTIONS
from .minigrid_words import (
    DOOR,
    EMPTY,
    UNSEEN,
    WALL,
    Sight,
    color_name,
    kind_name,
    place_in_words,
    sights,
    state_name,
    view_size,
)

FACING = ("east", "south", "west", "north")
PASSABLE = ("empty", "floor", "goal", "lava")
NEAREST = 3  # unexplored places that are told of
APART = 3  # cells that they lie from each other at least

Cell = tuple[int, int, int]
"""Type, colour and state, in minigrid's codes."""


class AbsoluteView:
    """What is in the agent's view, and the nearest walls ahead and at its sides, by column and row
    in the grid, from 1 in the upper left."""

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        image, mission = seen(observation, env)
        world: Any = env.unwrapped
        found = [_standing(world), *_carried(world)]
        for wall in (sight.thing for sight in sights(image) if sight.thing["kind"] == "wall"):
            found.append(_wall_at(*_there(world, wall["right"], wall["forward"])))
        for x, y, cell in sorted(_in_view(image, world), key=lambda one: (one[1], one[0])):
            if cell[0] > WALL:
                found.append(_at(cell, x, y, "You see "))
        return _fields(mission, found)


class WholeGrid:
    """The whole grid, by column and row from 1 in the upper left: nothing is hidden."""

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        _, mission = seen(observation, env)
        world: Any = env.unwrapped
        grid = world.grid.encode()
        found = [_standing(world), *_carried(world)]
        for y in range(world.grid.height):
            for x in range(world.grid.width):
                cell = tuple(grid[x, y].tolist())
                if cell[0] > WALL:
                    found.append(_at(cell, x, y, "There is "))
        found += [_line(text) for text in _free(grid)]
        return _fields(mission, found)


class RememberedMap:
    """What the agent sees, and what it remembers of the episode: things and openings that are out
    of its view now, by their place from where it stands, and the nearest unexplored places.

    It reckons its own place from its own moves alone: a turn always turns, and a step forward moves
    where the cell ahead, which is in view, lets it. (Here that place is read off the world, which
    comes to the same; ``tests/test_minigrid_maps.py`` compares the two.) What was moved by somebody
    else while out of view is remembered where it was.
    """

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], Cell] = {}

    def begin(self, env: gymnasium.Env, wording: Wording) -> None:
        """Forget everything: an episode begins."""
        self.cells = {}

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        image, mission = seen(observation, env)
        world: Any = env.unwrapped
        x, y = map(int, world.agent_pos)
        now = {(cx, cy): cell for cx, cy, cell in _in_view(image, world)}
        self.cells |= now
        self.cells.setdefault((x, y), (EMPTY, 0, 0))
        found = list(sights(image))
        for place, cell in self.cells.items():
            if place not in now and place != (x, y) and cell[0] > WALL:
                found.append(_remembered(cell, *_from(world, *place)))
        for place in self._openings():
            if place not in now and place != (x, y):
                found.append(_remembered(None, *_from(world, *place)))
        found += [_unexplored(*_from(world, *place)) for place in self._frontier(x, y)]
        return _fields(mission, found)

    def _openings(self) -> Iterator[tuple[int, int]]:
        """Gaps in walls: free cells between two walls, left and right or above and below."""
        for (x, y), cell in self.cells.items():
            if cell[0] == EMPTY:
                for dx, dy in ((1, 0), (0, 1)):
                    sides = (self.cells.get((x - dx, y - dy)), self.cells.get((x + dx, y + dy)))
                    ends = (self.cells.get((x - dy, y - dx)), self.cells.get((x + dy, y + dx)))
                    walls = all(side is not None and side[0] == WALL for side in sides)
                    if walls and not any(end is not None and end[0] == WALL for end in ends):
                        yield x, y

    def _frontier(self, x: int, y: int) -> list[tuple[int, int]]:
        """The nearest cells that are known to be free and lie beside an unknown one, some apart."""
        edge = [
            place
            for place, cell in self.cells.items()
            if kind_name(cell[0]) in PASSABLE or (cell[0] == DOOR and state_name(cell[2]) == "open")
            if any((place[0] + dx, place[1] + dy) not in self.cells for dx, dy in DIRECTIONS)
        ]
        edge.sort(key=lambda place: (abs(place[0] - x) + abs(place[1] - y), place))
        chosen: list[tuple[int, int]] = []
        for place in edge:
            if all(abs(place[0] - a) + abs(place[1] - b) >= APART for a, b in chosen):
                chosen.append(place)
        return chosen[:NEAREST]


def _in_view(image: np.ndarray, world: Any) -> Iterator[tuple[int, int, Cell]]:
    """(column, row, cell) of everything that is seen, but for the agent's own cell."""
    width, height = view_size(image)
    cells = image.tolist()
    for column in range(width):
        right = column - width // 2
        for row in range(height):
            forward = height - 1 - row
            kind, color, state = cells[column][row]
            if kind != UNSEEN and (right or forward):
                yield *_there(world, right, forward), (kind, color, state)


def _there(world: Any, right: int, forward: int) -> tuple[int, int]:
    """The column and row of what lies so far to the right of the agent, and so far ahead."""
    fx, fy = DIRECTIONS[int(world.agent_dir)]
    ax, ay = map(int, world.agent_pos)
    return ax + fx * forward - fy * right, ay + fy * forward + fx * right


def _from(world: Any, x: int, y: int) -> tuple[int, int]:
    """How far to the right of the agent, and how far ahead, a cell lies."""
    fx, fy = DIRECTIONS[int(world.agent_dir)]
    dx, dy = x - int(world.agent_pos[0]), y - int(world.agent_pos[1])
    return -dx * fy + dy * fx, dx * fx + dy * fy


def _name(cell: Cell) -> tuple[str, str]:
    """What a thing is called, and a door's state."""
    state = state_name(cell[2]) if cell[0] == DOOR else ""
    return f"{color_name(cell[1])} {kind_name(cell[0])}", state


def _standing(world: Any) -> Sight:
    x, y = (int(place) + 1 for place in world.agent_pos)
    facing = FACING[int(world.agent_dir)]
    said = f"You stand at column {x}, row {y} and face {facing}"
    return Sight(said, {"name": "you", "place": f"column {x}, row {y}", "state": facing,
                        "said": said, "brief": said})  # fmt: skip


def _carried(world: Any) -> list[Sight]:
    if world.carrying is None:
        return []
    name, _ = _name(tuple(world.carrying.encode()))
    said = f"You carry a {name}"
    return [Sight(said, {"name": name, "carried": True, "said": said, "brief": said})]


def _at(cell: Cell, x: int, y: int, opening: str) -> Sight:
    name, state = _name(cell)
    place = f"column {x + 1}, row {y + 1}"
    brief = " ".join(filter(None, (state, name, "at", place)))
    thing = {"name": name, "state": state, "place": place, "column": x + 1, "row": y + 1,
             "kind": kind_name(cell[0]), "color": color_name(cell[1]),
             "said": f"a {brief}", "brief": brief}  # fmt: skip
    return Sight(f"{opening}a {brief}", thing)


def _wall_at(x: int, y: int) -> Sight:
    place = f"column {x + 1}, row {y + 1}"
    brief = f"wall at {place}"
    thing = {"name": "wall", "place": place, "column": x + 1, "row": y + 1, "kind": "wall",
             "color": "grey", "said": f"a {brief}", "brief": brief}  # fmt: skip
    return Sight(f"You see a {brief}", thing)


def _remembered(cell: Cell | None, right: int, forward: int) -> Sight:
    """Something out of view; None is an opening."""
    name, state = ("opening", "") if cell is None else _name(cell)
    place = place_in_words(right, forward)
    brief = " ".join(filter(None, (state, name, place)))
    article = "an" if brief[0] in "aeiou" else "a"
    said = f"You remember {article} {brief}"
    thing = {"name": name, "state": state, "place": place, "right": right, "forward": forward,
             "kind": "opening" if cell is None else kind_name(cell[0]), "remembered": True,
             "said": f"remembered: {brief}", "brief": f"remembered: {brief}"}  # fmt: skip
    return Sight(said, thing)


def _unexplored(right: int, forward: int) -> Sight:
    place = place_in_words(right, forward) or "right here"
    said = f"Unexplored: {place}"
    thing = {"name": "unexplored", "place": place, "kind": "unexplored", "right": right,
             "forward": forward, "said": said, "brief": said}  # fmt: skip
    return Sight(said, thing)


def _line(text: str) -> Sight:
    return Sight(text, {"name": text, "said": text, "brief": text})


def _free(grid: np.ndarray) -> Iterator[str]:
    """The free cells, row by row: what is not told of is wall."""
    width, height, _ = grid.shape
    for y in range(height):
        columns = [x + 1 for x in range(width) if grid[x, y, 0] != WALL]
        if columns:
            yield f"Row {y + 1} is open at {_runs(columns)}"


def _runs(numbers: list[int]) -> str:
    """Rising numbers in words: "columns 2 to 5, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    said = [f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts]
    return f"{'column' if len(numbers) == 1 else 'columns'} {', '.join(said)}"


def _fields(mission: str, found: list[Sight]) -> dict[str, Any]:
    return {
        "mission": mission,
        "descriptions": [sight.sentence for sight in found],
        "things": [sight.thing for sight in found],
    }
