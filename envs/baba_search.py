"""Baba's expert: a search over boards, part of the plan by part."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from typing import Any, NamedTuple

import gymnasium

from lang_agent.language_env import ExpertLostError
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert

from .baba_rules import DOWN, LEFT, RIGHT, UP, Board, Rule, play

MAX_BOARDS = (2_000, 20_000)  # looked at for one part of a plan
MAX_BOARDS_UNPLANNED = (100_000,)  # looked at where there is no plan
MAX_WAYS = 4  # in which a part is done before the parts after it are given up


class Part(NamedTuple):
    """A part of a plan."""

    verb: str
    """make or break a rule, or go to what it says is "win"."""
    rule: Rule

    def __str__(self) -> str:
        return f"go to {self.rule.kind}" if self.verb == "go" else f"{self.verb} '{self.rule}'"

    def done(self, board: Board, ending: str) -> bool:
        if self.verb == "go":
            return ending == "win"
        return not ending and (self.rule in board.rules) == (self.verb == "make")


ANY_WIN = (Part("go", Rule("", "anything", "win")),)
"""The plan for want of one."""


def solve(board: Board, plan: Sequence[Part]) -> list[int] | None:
    """The actions that do the parts of a plan one after the other, each in the fewest steps; None
    where none were found.

    A way of doing a part may leave the next one hard or impossible: all ways are tried briefly
    before any is searched long.
    """
    for max_boards in MAX_BOARDS if plan != ANY_WIN else MAX_BOARDS_UNPLANNED:
        actions = _solve(board, plan, max_boards)
        if actions is not None:
            return actions
    return None


def _solve(board: Board, plan: Sequence[Part], max_boards: int) -> list[int] | None:
    if not plan:
        return []
    for end, actions in islice(_search(board, plan[0], max_boards), MAX_WAYS):
        rest = _solve(end, plan[1:], max_boards)
        if rest is not None:
            return actions + rest
    return None


def _search(board: Board, part: Part, max_boards: int) -> Iterator[tuple[Board, list[int]]]:
    """Breadth-first, by steps done and at least to do (A*): the ends of this part, the nearest
    first, and the ways there."""
    if part.done(board, ""):
        yield board, []
        return
    seen = {key(board)}
    count = 0  # no two boards are compared
    waiting: list[tuple[int, int, Board, list[int], bool]] = [(0, 0, board, [], False)]
    while waiting and count < max_boards:
        _, _, board, way, done = heappop(waiting)
        if done:
            yield board, way
            continue
        for action in (UP, RIGHT, DOWN, LEFT):
            after, ending = play(board, action)
            done = part.done(after, ending)
            if (ending and not done) or key(after) in seen or not after.things("you"):
                continue
            seen.add(key(after))
            count += 1
            to_do = 0 if done else _at_least(after, part)
            heappush(waiting, (len(way) + 1 + to_do, -count, after, [*way, action], done))


def key(board: Board) -> Hashable:
    """What two boards that play alike share."""
    moving = any(rule.what == "move" for rule in board.rules)
    return tuple(board.cells), tuple(sorted(board.facing.items())) if moving else ()


def _at_least(board: Board, part: Part) -> int:
    """Steps that the part still takes; 0 where that is hard to tell."""
    yous = [at for at, _ in board.things("you")]
    if part.verb == "go":
        return _nearest(board, yous, [at for at, _ in board.things("win")])
    words: dict[str, list[int]] = {}
    for at, stack in enumerate(board.cells):
        if stack and stack[-1].kind == "text":
            words.setdefault(stack[-1].name, []).append(at)
    _, kind, what = part.rule
    if part.verb == "break":
        blocks = [at for word in (kind, "is", what) for at in words.get(word, [])]
        return max(0, _nearest(board, yous, blocks) - 1)
    after = words.get(what, [])
    slots = [
        at - step for at in words.get("is", []) for step in (1, board.width) if at + step in after
    ]
    ways = [
        max(0, _nearest(board, yous, [word]) - 1) + _nearest(board, [word], slots)
        for word in words.get(kind, [])
    ]
    return min(ways, default=0)


def _nearest(board: Board, places: list[int], others: list[int]) -> int:
    width = board.width
    return min(
        (
            abs(one % width - other % width) + abs(one // width - other // width)
            for one in places
            for other in others
        ),
        default=0,
    )


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    """Plays what a search from the board as it stands has found."""
    return SearchExpert(env.unwrapped)


@dataclass
class SearchExpert:
    """Searches where it has not been, and remembers."""

    world: Any
    known: dict[Hashable, int] = field(default_factory=dict)
    """Board -> action."""

    def __call__(self, last_action: Any) -> int:
        board: Board = self.world.board
        if key(board) not in self.known:
            actions = solve(board, self.world.plan)
            if actions is None and self.world.plan != ANY_WIN:
                actions = solve(board, ANY_WIN)
            if actions is None:
                raise ExpertLostError("The search finds no way to win from this board.")
            for action in actions:
                self.known[key(board)] = action
                board, _ = play(board, action)
        return self.known[key(self.world.board)]
