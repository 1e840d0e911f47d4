"""A scripted explorer for MiniHack's navigation tasks. It knows what the words tell and nothing
more: it walks to the staircase down once that is seen, and until then to the nearest place from
which something new would be seen; opens doors and kicks those that are locked; fights what stands
beside it; and searches for hidden ways where nothing is left.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium
import numpy as np

from lang_agent.text_env.wording import Wording

from .nethack_view import CLOSED_DOORS, DIRECTIONS, DOWN, Cell, View, neighbours

FRIENDS = ("tame", "peaceful")
SEARCHES = 8  # in one place, before another is tried


class Explorer:
    """The expert of one episode: the action taken last -> the action it would take."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.refused: set[tuple[Cell, Cell]] = set()  # steps that left the player where it was
        self.searched: Counter[Cell] = Counter()
        self.locked: set[Cell] = set()
        self.went: tuple[Cell, Cell] | None = None  # from, to: the step that was wanted last
        self.door: Cell | None = None  # what it wants to open or kick

    def __call__(self, last: Any) -> str:
        view: View = self.world.view
        if self.went is not None and view.player == self.went[0]:
            self.refused.add(self.went)
        self.went = None
        if view.question is not None:
            return self._answer(view)
        if self.door is not None and any("locked" in message for message in view.messages):
            self.locked.add(self.door)
        self.door = None
        for thing in view.things:
            if _attackable(thing.name) and thing.blocks and thing.cell in neighbours(view.player):
                return _direction(view.player, thing.cell)
        ways = dict(view.walk(self.refused))
        stairs = [cell for cell in _cells(view.terrain == DOWN) if cell in ways]
        for cell in stairs or ways:
            if cell in stairs or (cell != view.player and view.unexplored[cell]):
                return self._step(view.player, cell, ways)
            door = self._closed_door(view, cell)
            if door is not None:
                if cell != view.player:
                    return self._step(view.player, cell, ways)
                self.door = door
                return "kick" if door in self.locked else "open"
        return self._search(view, ways)

    def _answer(self, view: View) -> str:
        """Which way to open or kick; no to everything else."""
        admissible = self.world.admissible()
        if self.door is not None and view.question and view.question.kind == "direction":
            return _direction(view.player, self.door)
        return next((no for no in ("n", "esc") if no in admissible), admissible[0])

    def _step(self, player: Cell, cell: Cell, ways: dict[Cell, Cell]) -> str:
        while ways[cell] != player:
            cell = ways[cell]
        self.went = (player, cell)
        return _direction(player, cell)

    def _closed_door(self, view: View, cell: Cell) -> Cell | None:
        """A closed door beside a cell, not across a corner, that there are means to open."""
        commands = self.world.commands
        for to in neighbours(cell):
            straight = cell[0] == to[0] or cell[1] == to[1]
            if straight and view.terrain[to] in CLOSED_DOORS:
                means = "kick" if to in self.locked else "open"
                if means in commands:
                    return to
        return None

    def _search(self, view: View, ways: dict[Cell, Cell]) -> str:
        """Where it has searched least, and there where it has the fewest ways on."""
        if "search" not in self.world.commands:
            free = (name for name, to in _around(view.player) if view.can_step(view.player, to))
            return next(free, "north")

        def worth(cell: Cell) -> tuple[int, int]:
            return self.searched[cell] // SEARCHES, sum(to in ways for to in neighbours(cell))

        best = min(ways, key=worth)
        if best != view.player and worth(best) < worth(view.player):
            return self._step(view.player, best, ways)
        self.searched[view.player] += 1
        return "search"


def _cells(mask: np.ndarray) -> list[Cell]:
    return [(row, column) for row, column in np.argwhere(mask).tolist()]


def _attackable(name: str) -> bool:
    return name != "boulder" and not name.startswith(FRIENDS)


def _around(cell: Cell) -> list[tuple[str, Cell]]:
    return list(zip(DIRECTIONS, neighbours(cell), strict=True))


def _direction(cell: Cell, to: Cell) -> str:
    return next(name for name, beside in _around(cell) if beside == to)


def expert(env: gymnasium.Env, wording: Wording) -> Explorer:
    """An expert for the episode that the environment has just begun."""
    return Explorer(env.unwrapped)
