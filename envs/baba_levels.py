"""Baba's 40 levels of BALROG, drawn by the recipe of Baba Is AI from a generator of their own.

A name says what is drawn: the goal, and what distracts from it. Every board that is drawn can be
won.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .baba_rules import Board, Rule, board_of
from .baba_search import Part, solve

DISTRACTORS = ("", "-distr_obj", "-distr_rule", "-distr_obj_rule", "-distr_obj-irrelevant_rule")
LEVELS = (
    *(f"{goal}{more}" for goal in ("goto_win", "make_win") for more in DISTRACTORS),
    *(
        f"two_room-{goal}{more}"
        for goal in (
            "goto_win",
            "break_stop-goto_win",
            "maybe_break_stop-goto_win",
            "make_win",
            "break_stop-make_win",
        )
        for more in DISTRACTORS
    ),
    "two_room-goto_win-distr_win_rule",
    "two_room-make_win-distr_win_rule",
    "two_room-make_you",
    "two_room-make_you-make_win",
    "two_room-make_wall_win",
)
KINDS = ("ball", "key", "door")
COLORS = ("red", "blue", "green")
WALL_IS_STOP = Rule("", "wall", "stop")

Places = list[tuple[int, int]]


def size_of(level: str) -> tuple[int, int]:
    """Width and height, with the border."""
    return (13, 9) if level.startswith("two_room") else (8, 8)


def draw(level: str, rng: np.random.Generator) -> tuple[Board, tuple[Part, ...]]:
    """A board of the level, and a plan by which it can be won."""
    while True:
        layout = _Layout(rng)
        one_of = [KINDS[i] for i in rng.permutation(len(KINDS))]
        draw_room = _two_rooms if level.startswith("two_room") else _one_room
        plan = draw_room(level, layout, one_of)
        board = board_of(*size_of(level), [(*at, *what) for at, what in layout.things.items()])
        if solve(board, plan) is not None:
            return board, plan


@dataclass
class _Layout:
    """What lies where so far; each thing in a cell of its own."""

    rng: np.random.Generator
    things: dict[tuple[int, int], tuple[str, str, bool]] = field(default_factory=dict)

    def put(self, places: Places, kind: str, name: str) -> tuple[int, int]:
        """Put a thing on one of these places that is free."""
        free = [place for place in places if place not in self.things]
        place = free[int(self.rng.integers(len(free)))]
        self.things[place] = (kind, name, False)
        return place

    def put_object(self, places: Places, kind: str) -> tuple[int, int]:
        return self.put(places, kind, COLORS[int(self.rng.integers(len(COLORS)))])

    def put_rule(self, x: int, y: int, words: str) -> None:
        for number, word in enumerate(words.split()):
            self.put([(x + number, y)], "text", word)

    def move(self, place: tuple[int, int], places: Places) -> None:
        kind, name, _ = self.things.pop(place)
        self.put([other for other in places if other != place], kind, name)


def _area(xs: Iterable[int], ys: Iterable[int]) -> Places:
    rows = list(ys)
    return [(x, y) for x in xs for y in rows]


def _one_room(level: str, layout: _Layout, kinds: list[str]) -> tuple[Part, ...]:
    kind, second, third = kinds
    layout.put_rule(1, 6, "baba is you")
    layout.put_rule(1, 1, f"{kind} is win")
    if "make_win" in level:
        layout.move((1, 1), _area(range(2, 6), range(2, 6)))
    if "rule" in level:
        edges = _area(range(4, 7), (1, 6)) + _area((6,), range(2, 6))
        layout.put(edges, "text", third if "irrelevant" in level else second)
    room = _area(range(1, 7), range(2, 7))
    layout.put(room, "baba", "white")
    layout.put_object(room, kind)
    if "distr_obj" in level:
        layout.put_object(room, second)
    return _to_win(kind)


def _two_rooms(level: str, layout: _Layout, kinds: list[str]) -> tuple[Part, ...]:
    kind, second, third = kinds
    for y in range(1, 8):
        layout.put([(6, y)], "wall", "grey")
    layout.put_rule(9, 1, f"{kind} is win")
    start = _area(range(2, 6), range(3, 6))
    left, right = _area(range(1, 5), range(1, 8)), _area(range(7, 11), range(2, 8))
    edges = _area((11,), range(2, 7)) + _area(range(8, 12), (7,))
    if "make_you" in level:
        return _make_you(level, layout, kinds, start, right)
    layout.put_rule(1, 7, "baba is you")
    if "make_wall_win" in level:
        layout.put_rule(2, 2, "wall is stop")
        layout.move((9, 1), edges)
        layout.put(_area(range(8, 11), range(3, 6)), "text", third)
        layout.put(start, "baba", "white")
        layout.put_object(right, kind)
        layout.put_object(right, second)
        return (Part("break", WALL_IS_STOP), *_to_win("wall"))
    layout.put_rule(1, 2, "wall is stop")
    if "distr_win_rule" in level:
        layout.put_rule(9, 4, f"{third} is win")
    if "make_win" in level:
        layout.move((9, 1), _area(range(7, 11), range(3, 6)))
    if "break_stop" not in level:
        layout.move((int(layout.rng.integers(2, 4)), 2), start)
    distracts = "distr_obj" in level or "distr_win_rule" in level
    if "rule" in level:
        inner = _area(range(7, 11), range(3, 6))
        word = third if "irrelevant" in level else second
        layout.put(edges if distracts else inner, "text", word)
    layout.put(start, "baba", "white")
    if "maybe_break_stop" in level:
        places = left + right
    else:
        places = right if "break_stop" in level else left
    x, _ = layout.put_object(places, kind)
    if distracts:
        layout.put_object(places, second)
    # The win word is in the right room, where "make" has to go.
    breaks = "break_stop" in level and (x > 6 or "make_win" in level)
    return (*([Part("break", WALL_IS_STOP)] if breaks else []), *_to_win(kind))


def _make_you(
    level: str, layout: _Layout, kinds: list[str], start: Places, right: Places
) -> tuple[Part, ...]:
    kind, second, _ = kinds
    layout.put_rule(1, 6, "baba is you")
    layout.put_rule(1, 1, "wall is stop")
    if "make_win" in level:
        layout.move((9, 1), _area(range(8, 11), range(3, 6)))
    layout.put(_area(range(2, 5), range(3, 6)), "text", second)
    layout.put(start, "baba", "white")
    layout.put_object(right, kind)
    layout.put_object(right, second)
    return (Part("make", Rule("", second, "you")), *_to_win(kind))


def _to_win(kind: str) -> tuple[Part, ...]:
    rule = Rule("", kind, "win")
    return Part("make", rule), Part("go", rule)
