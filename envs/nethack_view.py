"""What a NetHack player sees, taken from nle's arrays: the level as far as it is known, what lies
on it, what the game says and asks, and how the player fares.

Cells are (row, column) of the map's 21 rows and 79 columns, from the upper left. Of a level the
terrain is told by the number of its symbol in NetHack (``defsym``; nle's ``symdef``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Cell = tuple[int, int]

DIRECTIONS: Mapping[str, Cell] = {
    "north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1),
    "northeast": (-1, 1), "southeast": (1, 1), "southwest": (1, -1), "northwest": (-1, -1),
}  # fmt: skip
STONE, DOORWAY, TREE, BARS, DOWN = 0, 12, 18, 17, 24
WALLS = range(1, 12)
OPEN_DOORS, CLOSED_DOORS = (13, 14), (15, 16)
WATER, LAVA = (32, 41), (34,)
FLOOR = (12, *OPEN_DOORS, 19, 20, 21, 22, *range(23, 32), 33, 35, 36, 39)
TRAPS = range(42, 65)
FEATURES = (12, *OPEN_DOORS, *CLOSED_DOORS, *range(23, 32), *range(35, 39), *TRAPS)
"""Terrain that is told of wherever it is seen; of the following the nearest cell alone is."""
EXPANSES = (BARS, TREE, 32, 33, 34, 40, 41)
THING = -1  # in place of a terrain: a monster or an object hides it
HUNGER = ("satiated", "", "hungry", "weak with hunger", "fainting", "fainted", "starved")
BURDEN = ("", "burdened", "stressed", "strained", "overtaxed", "overloaded")
CONDITIONS = (
    "turning to stone", "turning to slime", "strangled", "food poisoned", "terminally ill", "blind",
    "deaf", "stunned", "confused", "hallucinating", "levitating", "flying", "riding",
)  # fmt: skip
"""In the order of the bits of nle's condition mask."""
STATS = (
    "x", "y", "strength", "strength125", "dexterity", "constitution", "intelligence", "wisdom",
    "charisma", "score", "hp", "max_hp", "depth", "gold", "energy", "max_energy", "ac", "hd",
    "level", "experience", "turn", "hunger", "burden", "dungeon", "dungeon_level", "condition",
    "alignment",
)  # fmt: skip
"""In the order of nle's ``blstats``."""


@dataclass(frozen=True)
class Question:
    """What the game waits for."""

    kind: str
    """``direction``, ``letter``, ``menu`` or ``text``."""
    keys: tuple[int, ...]
    """What can be pressed."""
    lines: tuple[str, ...] = ()
    """Of a menu, what it shows."""


@dataclass(frozen=True)
class Thing:
    """Something on the map that has a name."""

    name: str
    cell: Cell
    blocks: bool
    """It cannot be walked onto: a boulder, or a monster that is not tame, which is attacked."""


@dataclass(frozen=True)
class View:
    """What is known after a step."""

    terrain: np.ndarray
    """(21, 79) numbers of symbols; :data:`THING` where something stands on it."""
    things: Sequence[Thing]
    """The nearest first."""
    player: Cell
    felt: np.ndarray
    """(21, 79) bool: cells of this level that the player has stood beside. What is :data:`STONE`
    there is rock, and elsewhere it may be anything."""
    stats: Mapping[str, int]
    messages: Sequence[str]
    """What the game said since the last action."""
    inventory: Sequence[tuple[str, str]]
    """(letter, what it is)."""
    drawn: Sequence[str]
    """The map's 21 lines in NetHack's signs."""
    symbols: Sequence[str]
    """What the numbers of terrain are called."""
    question: Question | None = None
    over: bool = False
    """The game has ended, and there is nothing to see any more."""

    @cached_property
    def _blocked(self) -> dict[Cell, Thing]:
        return {one.cell: one for one in self.things if one.blocks}

    @cached_property
    def _passable(self) -> list[list[bool]]:
        free = _PASSABLE[self.terrain]
        for cell in self._blocked:
            free[cell] = False
        return free.tolist()

    @cached_property
    def _doors(self) -> list[list[bool]]:
        return _OPEN_DOOR[self.terrain].tolist()

    @cached_property
    def unexplored(self) -> np.ndarray:
        """(21, 79) bool: cells that may have something unknown beside them."""
        unknown = np.pad((self.terrain == STONE) & ~self.felt, 1)
        unknown[:, :2] = False
        beside = np.zeros(self.terrain.shape, bool)
        for down, right in DIRECTIONS.values():
            beside |= unknown[1 + down : 22 + down, 1 + right : 80 + right]
        return beside

    def blocking(self, cell: Cell) -> Thing | None:
        """The thing that stands in the way on a cell."""
        return self._blocked.get(cell)

    def passable(self, cell: Cell) -> bool:
        """Whether it is known that one can stand there."""
        return inside(cell) and self._passable[cell[0]][cell[1]]

    def can_step(self, cell: Cell, to: Cell) -> bool:
        """Whether one can go from a cell to the next: not through a door's corner."""
        if not self.passable(to):
            return False
        doors = self._doors
        straight = cell[0] == to[0] or cell[1] == to[1]
        return straight or not (doors[cell[0]][cell[1]] or doors[to[0]][to[1]])

    def walk(self, without: Container[tuple[Cell, Cell]] = ()) -> Iterator[tuple[Cell, Cell]]:
        """Every cell that can be walked to by what is known, save by the steps that are named, with
        the cell before it; the nearest first, and first of all the player's own."""
        known, todo = {self.player}, deque([self.player])
        yield self.player, self.player
        while todo:
            cell = todo.popleft()
            for to in neighbours(cell):
                if to not in known and self.can_step(cell, to) and (cell, to) not in without:
                    known.add(to)
                    todo.append(to)
                    yield to, cell


def _of(*kinds: int) -> np.ndarray:
    """(100,) bool by terrain, whose last place is that of :data:`THING`."""
    return np.isin(np.arange(100), [kind % 100 for kind in kinds])


_PASSABLE, _OPEN_DOOR = _of(*FLOOR, *TRAPS, THING), _of(*OPEN_DOORS)
_TOLD, _EXPANSE = _of(*FEATURES, THING), _of(*EXPANSES)


def inside(cell: Cell) -> bool:
    return 0 <= cell[0] < 21 and 0 < cell[1] < 79


def neighbours(cell: Cell) -> Iterator[Cell]:
    row, column = cell
    return ((row + down, column + right) for down, right in DIRECTIONS.values())


def text(codes: Any) -> str:
    """nle's characters, up to the first zero."""
    return bytes(codes).split(b"\0", 1)[0].decode("latin-1").strip()


def screen_lines(signs: np.ndarray) -> list[str]:
    return [bytes(row).decode("latin-1").rstrip() for row in signs]


def look(
    seen: Mapping[str, np.ndarray],
    first_symbol: int,
    symbols: Sequence[str],
    monsters: np.ndarray,
    levels: dict[tuple[int, int], np.ndarray],
    messages: Sequence[str],
    question: Question | None,
    over: bool,
) -> View:
    """A view of nle's arrays, which are its own buffers and change with the next step.

    Args:
        first_symbol: the glyph of the first symbol of terrain, which the others follow.
        symbols: what they are called, in that order.
        monsters: (glyphs,) bool, which glyphs are monsters.
        levels: level -> :attr:`View.felt`; what is felt now is entered.
    """
    stats = dict(zip(STATS, map(int, seen["blstats"]), strict=True))
    player = (stats["y"], stats["x"])
    glyphs = seen["glyphs"]
    numbers = glyphs - first_symbol
    terrain = np.where((numbers >= 0) & (numbers < len(symbols)), numbers, THING)
    terrain[:, 0] = STONE  # the map's first column is never used
    level = (stats["dungeon"], stats["dungeon_level"])
    felt = levels.setdefault(level, np.zeros(glyphs.shape, bool))
    if not stats["condition"] & 1 << CONDITIONS.index("blind"):
        row, column = player
        felt[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    inventory = [
        (chr(letter), text(line))
        for letter, line in zip(seen["inv_letters"], seen["inv_strs"], strict=True)
        if letter
    ]
    return View(
        terrain=terrain,
        things=() if over else _things(terrain, glyphs, seen, monsters, player),
        player=player,
        felt=felt.copy(),
        stats=stats,
        messages=messages,
        inventory=inventory,
        drawn=screen_lines(seen["chars"]),
        symbols=symbols,
        question=question,
        over=over,
    )


_ARTICLE = re.compile(r"^(an?|the) ")


def _things(
    terrain: np.ndarray,
    glyphs: np.ndarray,
    seen: Mapping[str, np.ndarray],
    monsters: np.ndarray,
    player: Cell,
) -> list[Thing]:
    told = _TOLD[terrain]
    expanses = _EXPANSE[terrain]
    for kind in np.unique(terrain[expanses]) if expanses.any() else ():
        cells = np.argwhere(terrain == kind)
        away = np.abs(cells - player)
        nearest = (100 * away.max(axis=1) + away.min(axis=1)).argmin()
        told[tuple(cells[nearest])] = True
    told[player] = False
    things = []
    for row, column in np.argwhere(told).tolist():
        name = _ARTICLE.sub("", text(seen["screen_descriptions"][row, column]))
        if name:
            enemy = monsters[glyphs[row, column]] and not name.startswith("tame ")
            blocks = name == "boulder" or bool(enemy)
            things.append(Thing(name, (row, column), blocks))
    return sorted(things, key=lambda thing: (far(thing.cell, player), thing.cell))


def far(cell: Cell, other: Cell) -> int:
    """In steps over open ground."""
    return max(abs(cell[0] - other[0]), abs(cell[1] - other[1]))


# -- what the game asks ----------------------------------------------------------------------------

_MENU_END = re.compile(r"\((?:end|\d+ of \d+)\)")
_CHOICE = re.compile(r"(\S) [-+#*] ")
_MORE = "--More--"
ENTER, ESCAPE = 13, 27


def menu(screen: Sequence[str]) -> Question | None:
    """The menu on the screen, where there is one."""
    for row, line in enumerate(screen):
        end = _MENU_END.search(line)
        if end:
            lines = tuple(cut for above in screen[:row] if (cut := above[end.start() :].strip()))
            keys = [ord(choice[1]) for one in lines if (choice := _CHOICE.match(one))]
            pages = [ord(">"), ord("<")] if "of" in end[0] else []
            return Question("menu", (*keys, *pages, ENTER, ESCAPE), lines)
    return None


def overlay(screen: Sequence[str]) -> list[str]:
    """The lines of a text that is shown over the map and waits to be read on."""
    for row, line in enumerate(screen):
        left = line.find(_MORE)
        if left >= 0 and row:
            return [cut for above in screen[:row] if (cut := above[left:].strip())]
    return []


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEXT = Question("text", (*map(ord, LETTERS), *map(ord, "0123456789 "), ENTER, ESCAPE))
"""For a question that a whole text answers, typed letter by letter."""


def question(message: str, carried: Sequence[int]) -> Question:
    """What may be answered to a question for one key, such as ``What do you want to zap? [ab or
    ?*]``.

    Args:
        carried: the letters of the inventory, which answer where any of it may be named.
    """
    if message.endswith("direction?"):
        return Question("direction", (*map(ord, "kljhunby<>."), ESCAPE))
    asked = re.search(r"\[([^\]]*)\]", message)
    if asked is None:
        return Question("letter", (*map(ord, LETTERS), ESCAPE))
    keys = [*map(ord, _choices(asked[1]))] or [*carried]
    return Question("letter", (*keys, ESCAPE))


def _choices(written: str) -> Iterator[str]:
    """``a-cf or ?*`` as its letters; ``?`` and ``*``, which list them, are left out."""
    written = written.split(" or ")[0]
    at = 0
    while at < len(written):
        first, rest = written[at], written[at + 1 : at + 3]
        if first.isalnum() and len(rest) == 2 and rest[0] == "-" and rest[1].isalnum():
            yield from map(chr, range(ord(first), ord(rest[1]) + 1))
            at += 3
            continue
        if first not in "?* #":
            yield first
        at += 1
