"""What a minigrid agent has seen in an episode, as sets of cells that are quick to search.

A set of cells is one integer: bit ``row * width + column`` is set where the cell belongs to it. A
shift moves all of its cells at once, so that a search through a grid of 22 x 22 cells and four
directions takes some hundred operations on integers and not thousands of steps through a queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .minigrid_view import _offsets
from .minigrid_words import DOOR, EMPTY, UNSEEN, WALL

CLOSED, LOCKED = 1, 2  # of a door, which is open at 0
KEY, BALL, BOX = 5, 6, 7  # what can be carried


class Memory:
    """The cells of a world that were seen since the episode began, as they were seen last."""

    def __init__(self, world: Any) -> None:
        self.width, self.height = world.width, world.height
        self.steps = (1, self.width, -1, -self.width)
        """What is added to a cell's number on the way right, down, left and up."""
        self.all = (1 << self.width * self.height) - 1
        self.cells: dict[int, tuple[int, int, int]] = {}
        """Type, colour and state, in minigrid's codes, of every cell seen that is no floor."""
        self.known = self.floor = self.things = self.walls = 0
        self.doors = self.closed = self.locked = 0
        self.at = self.facing = 0
        self.carried: tuple[int, int] | None = None

    def look(self, image: np.ndarray, world: Any) -> None:
        """Note what the agent sees: minigrid's partial view."""
        size = len(image)
        x, y = int(world.agent_pos[0]), int(world.agent_pos[1])
        self.at, self.facing = y * self.width + x, int(world.agent_dir)
        offsets = _offsets(size, self.facing)
        flat = image.tobytes()
        index = 0
        for column in range(size):
            for row in range(size):
                kind = flat[index]
                if kind != UNSEEN:
                    dx, dy = offsets[row][column]
                    cx, cy = x + dx, y + dy
                    if (dx or dy) and 0 <= cx < self.width and 0 <= cy < self.height:
                        cell = (kind, flat[index + 1], flat[index + 2])
                        self._note(cy * self.width + cx, cell)
                index += 3
        middle = 3 * (size // 2 * size + size - 1)
        carried = flat[middle] > WALL
        self.carried = (flat[middle], flat[middle + 1]) if carried else None
        if not self.known >> self.at & 1:
            self._note(self.at, (EMPTY, 0, 0))

    def _note(self, place: int, cell: tuple[int, int, int]) -> None:
        bit = 1 << place
        kind, _, state = cell
        if self.known & bit:
            if kind == EMPTY:
                if self.floor & bit:
                    return
            elif self.cells.get(place) == cell:
                return
            for name in ("floor", "things", "walls", "doors", "closed", "locked"):
                setattr(self, name, getattr(self, name) & ~bit)
        self.known |= bit
        if kind == EMPTY:
            self.floor |= bit
            self.cells.pop(place, None)
            return
        self.cells[place] = cell
        if kind == WALL:
            self.walls |= bit
        elif kind == DOOR:
            self.doors |= bit
            if state == CLOSED:
                self.closed |= bit
            elif state == LOCKED:
                self.locked |= bit
        elif kind in (KEY, BALL, BOX):
            self.things |= bit

    def hiding(self, room: int) -> list[int]:
        """Closed doors beside which something is unseen: those of the room of these cells before
        others, and what was found last before what was found first."""
        doors = self.closed & self.beside(self.all & ~self.known)
        found = [place for place in reversed(self.cells) if doors >> place & 1] if doors else []
        near = self.beside(room)
        return sorted(found, key=lambda place: not near >> place & 1)

    def beside(self, cells: int) -> int:
        """The cells beside those of a set, left, right, above or below."""
        width = self.width
        return (cells << 1 | cells >> 1 | cells << width | cells >> width) & self.all

    def flood(self, start: int, through: int) -> int:
        """What can be reached from the cells ``start`` on cells of ``through``, with themselves."""
        reached = new = start
        while new:
            new = self.beside(new) & through & ~reached
            reached |= new
        return reached

    def spread(self, through: int) -> Iterator[tuple[int, int]]:
        """The cells of ``through`` that can be reached from where the agent stands, those at equal
        distance together: by which door one leaves the room for them (0: by none), and the cells.
        A door itself lies behind itself."""
        start = 1 << self.at
        reached, doors = start, self.doors & through & ~start
        fronts = {0: start}
        while fronts:
            yield from fronts.items()
            further: dict[int, int] = {}
            for door, front in fronts.items():
                new = self.beside(front) & through & ~reached
                reached |= new
                if not door:
                    gates = new & doors
                    new &= ~doors
                    while gates:
                        gate = gates & -gates
                        further[gate] = gate
                        gates &= gates - 1
                if new:
                    further[door] = further.get(door, 0) | new
            fronts = further

    def first_door(self, targets: int, through: int) -> int:
        """The door by which a shortest way leaves the room to a cell beside one of ``targets``; 0
        where the way stays in it, and where there is none."""
        for door, cells in self.spread(through):
            if self.beside(cells) & targets:
                return door
        return 0
