"""Baba's rules of play: words that lie in the grid say what moves, stops, wins and loses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

OBJECTS = ("ball", "key", "door", "wall", "baba")
PROPERTIES = ("you", "win", "stop", "push", "pull", "move", "open", "shut", "lose")
COLORS = ("red", "green", "blue", "purple", "yellow", "grey", "white")
ACTIONS = ("idle", "up", "right", "down", "left")
IDLE, UP, RIGHT, DOWN, LEFT = range(5)


class Thing(NamedTuple):
    """What lies in a cell. Its number is its own (the border has -1), so that no two are equal."""

    number: int
    kind: str
    """An object's kind, "text" or "border"."""
    name: str
    """The colour of an object, the word of a text."""
    fixed: bool = False
    """Whether it is a text that cannot be pushed."""


class Rule(NamedTuple):
    """``[color] kind is what``, where ``what`` is a property or another kind."""

    color: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.color} {self.kind} is {self.what}".strip()


@dataclass
class Board:
    """The grid row by row: each cell holds a stack of things, the top one last.

    The outermost cells are border, so that no step and no rule leaves the grid.
    """

    width: int
    cells: list[tuple[Thing, ...]]
    rules: tuple[Rule, ...] = ()
    facing: dict[int, int] = field(default_factory=dict)
    """Number of a thing -> the direction of its last step; right where it never moved."""

    @property
    def height(self) -> int:
        return len(self.cells) // self.width

    def has(self, thing: Thing, what: str) -> bool:
        """Whether the rules say so of the thing."""
        _, kind, name, _ = thing
        return ("", kind, what) in self.rules or (name, kind, what) in self.rules

    def things(self, what: str) -> list[tuple[int, Thing]]:
        """All things of which the rules say so, in grid order, with their positions."""
        kinds = {rule.kind for rule in self.rules if rule.what == what}
        if not kinds:
            return []
        return [
            (at, thing)
            for at, stack in enumerate(self.cells)
            if stack
            for thing in stack
            if thing[1] in kinds and self.has(thing, what)
        ]

    def top(self, at: int) -> Thing | None:
        stack = self.cells[at]
        return stack[-1] if stack else None


def board_of(width: int, height: int, cells: Iterable[tuple[int, int, str, str, bool]]) -> Board:
    """A board with these things (x, y, kind, name, fixed) inside of its border."""
    grid: list[tuple[Thing, ...]] = [()] * (width * height)
    for at in range(width * height):
        if at % width in (0, width - 1) or at // width in (0, height - 1):
            grid[at] = (Thing(-1, "border", "grey"),)
    for number, (x, y, kind, name, fixed) in enumerate(cells):
        grid[y * width + x] += (Thing(number, kind, name, fixed),)
    board = Board(width, grid)
    read_rules(board)
    return board


def read_rules(board: Board) -> None:
    """Read the rules that the words say, and turn objects into what they say they are."""
    board.rules = tuple(_rules(board))
    new_kinds = {rule[:2]: rule.what for rule in reversed(board.rules) if rule.what in OBJECTS}
    if not new_kinds:
        return
    for at, stack in enumerate(board.cells):
        board.cells[at] = tuple(
            thing._replace(
                kind=new_kinds.get((thing.name, thing.kind))
                or new_kinds.get(("", thing.kind), thing.kind)
            )
            for thing in stack
        )


def _rules(board: Board) -> Iterator[Rule]:
    words = {
        at: stack[-1].name
        for at, stack in enumerate(board.cells)
        if stack and stack[-1].kind == "text"
    }
    for at, word in words.items():
        if word != "is":
            continue
        for step in (1, board.width):
            kind, what = words.get(at - step), words.get(at + step)
            if kind in OBJECTS and (what in PROPERTIES or what in OBJECTS):
                color = words.get(at - 2 * step, "")
                yield Rule(color if color in COLORS else "", kind, what)


def play(board: Board, action: int) -> tuple[Board, str]:
    """The board after an action, and how that ended the game: "win", "lose", or "" if it did not.

    A board on which nothing is "you" any more is for the caller to notice (``things("you")``).
    """
    board = Board(board.width, list(board.cells), board.rules, board.facing)
    moved: dict[int, int] = {}
    ending = ""
    if action != IDLE:
        for at, thing in board.things("you"):
            if thing.number not in moved and not ending:
                ending = _turn(board, at, thing, action, moved)
    for at, thing in board.things("move"):
        if not ending:
            facing = board.facing.get(thing.number, RIGHT)
            ending = _turn(board, at, thing, moved.get(thing.number, facing), moved)
    board.facing = board.facing | moved
    if action != IDLE:
        read_rules(board)
    return board, ending


def _turn(board: Board, at: int, thing: Thing, direction: int, moved: dict[int, int]) -> str:
    """Let a thing go by itself; what comes of it if it is "you"."""
    if thing not in board.cells[at]:  # it has been pushed or pulled since, or is gone
        found = [place for place, stack in enumerate(board.cells) if thing in stack]
        if not found:
            return ""
        at = found[0]
    ahead = at + _step(board, direction)
    if not _go(board, at, thing, direction, moved) or thing not in board.cells[ahead]:
        return ""
    below = board.cells[ahead][:-1]
    if not below or not board.has(thing, "you"):
        return ""
    return next((what for what in ("win", "lose") if board.has(below[-1], what)), "")


def _go(
    board: Board, at: int, thing: Thing, direction: int, moved: dict[int, int], pushed: bool = False
) -> bool:
    """Move a thing by one cell, with what it pushes and pulls; whether it has left its cell."""
    step = _step(board, direction)
    ahead = at + step
    top = board.top(ahead)
    if top is not None:
        if _opens(board, thing, top):
            _take(board, at, thing)
            _take(board, ahead, top)
            return True
        if _can_be_pushed(board, top):
            if not _go(board, ahead, top, direction, moved, pushed=True) and pushed:
                return False  # a row moves as one or not at all
            top = board.top(ahead)
        if top is not None and (top.kind in ("text", "border") or board.has(top, "stop")):
            return False
    _take(board, at, thing)
    board.cells[ahead] += (thing,)
    moved[thing.number] = direction
    behind = board.top(at - step)
    if behind is not None and behind.kind in OBJECTS and board.has(behind, "pull"):
        _go(board, at - step, behind, direction, moved)
    return True


def _step(board: Board, direction: int) -> int:
    return (0, -board.width, 1, board.width, -1)[direction]


def _take(board: Board, at: int, thing: Thing) -> None:
    board.cells[at] = tuple(other for other in board.cells[at] if other != thing)


def _opens(board: Board, one: Thing, other: Thing) -> bool:
    return (board.has(one, "open") and board.has(other, "shut")) or (
        board.has(one, "shut") and board.has(other, "open")
    )


def _can_be_pushed(board: Board, thing: Thing) -> bool:
    return not thing.fixed if thing.kind == "text" else board.has(thing, "push")
