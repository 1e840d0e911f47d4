"""The shortest solution of a Sokoban room, by A* over pushes (Hart, Nilsson and Raphael 1968)."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gymnasium
import numpy as np

from lang_agent.language_env import ExpertLostError
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert

Cell = tuple[int, int]
"""Row and column."""

MOVES: tuple[Cell, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
MOST_STATES = 200_000  # looked at before the search gives up
NEVER = 10**6  # pushes, for a box that cannot be brought there


def moved(cell: Cell, action: int, steps: int = 1) -> Cell:
    row, column = MOVES[action]
    return cell[0] + steps * row, cell[1] + steps * column


def reach(player: Cell, free: frozenset[Cell]) -> dict[Cell, tuple[int, ...]]:
    """Where the player can walk over free cells -> the moves that it takes."""
    ways: dict[Cell, tuple[int, ...]] = {player: ()}
    waiting = deque([player])
    while waiting:
        cell = waiting.popleft()
        for action in range(len(MOVES)):
            to = moved(cell, action)
            if to in free and to not in ways:
                ways[to] = (*ways[cell], action)
                waiting.append(to)
    return ways


class Solver:
    """Solves rooms of one floor and one set of targets."""

    def __init__(self, floor: frozenset[Cell], targets: frozenset[Cell]) -> None:
        self.floor, self.targets = floor, targets
        self._pushes = [self._distances(target) for target in sorted(targets)]
        self._estimates: dict[frozenset[Cell], float] = {}

    def solve(self, player: Cell, boxes: frozenset[Cell]) -> list[int] | None:
        """The fewest moves that solve the room; None where none do, or none were found."""
        order = count()
        start = (player, boxes)
        cost: dict[tuple[Cell, frozenset[Cell]], int] = {start: 0}
        before: dict[Any, tuple[Any, tuple[int, ...]]] = {}
        waiting = [(self._estimate(boxes), next(order), start)]
        done: set[tuple[Cell, frozenset[Cell]]] = set()
        while waiting and len(done) < MOST_STATES:
            least, _, state = heapq.heappop(waiting)
            if least == math.inf:
                return None
            if state in done:
                continue
            done.add(state)
            if state[1] == self.targets:
                return _moves(before, state)
            for moves, after in self._pushes_from(*state):
                total = cost[state] + len(moves)
                if total < cost.get(after, NEVER):
                    cost[after], before[after] = total, (state, moves)
                    estimate = self._estimate(after[1])
                    if estimate < math.inf:
                        heapq.heappush(waiting, (total + estimate, next(order), after))
        return None

    def _pushes_from(
        self, player: Cell, boxes: frozenset[Cell]
    ) -> Iterator[tuple[tuple[int, ...], tuple[Cell, frozenset[Cell]]]]:
        """(moves, what they lead to) of every push that can be made next."""
        free = self.floor - boxes
        ways = reach(player, free)
        for box in boxes:
            for action in range(len(MOVES)):
                behind, to = moved(box, action, -1), moved(box, action)
                if behind in ways and to in free:
                    yield (*ways[behind], action), (box, boxes - {box} | {to})

    def _estimate(self, boxes: frozenset[Cell]) -> float:
        """The pushes that it takes at least: each box to a target of its own, as if it were alone.
        Infinite where a box lies dead, where no push brings it to a target any more."""
        from scipy.optimize import linear_sum_assignment  # late: it takes a third of a second

        if boxes not in self._estimates:
            far = np.array(
                [[one.get(box, NEVER) for one in self._pushes] for box in sorted(boxes)], float
            )
            total = float(far[linear_sum_assignment(far)].sum())
            self._estimates[boxes] = total if total < NEVER else math.inf
        return self._estimates[boxes]

    def _distances(self, target: Cell) -> dict[Cell, int]:
        """From where a lone box can be pushed to a target -> in how many pushes; found by pulling
        it from there."""
        found = {target: 0}
        waiting = deque([target])
        while waiting:
            cell = waiting.popleft()
            for action in range(len(MOVES)):
                to, player = moved(cell, action), moved(cell, action, 2)
                if to not in found and to in self.floor and player in self.floor:
                    found[to] = found[cell] + 1
                    waiting.append(to)
        return found


def _moves(before: dict[Any, tuple[Any, tuple[int, ...]]], state: Any) -> list[int]:
    parts = []
    while state in before:
        state, moves = before[state]
        parts.append(moves)
    return [action for moves in reversed(parts) for action in moves]


@dataclass
class Guide:
    """Follows a solution, and looks for another one when something else was done."""

    world: Any
    solver: Solver
    plan: list[int] = field(default_factory=list)

    def __call__(self, last_action: Any) -> int:
        if last_action is not None and self.plan and last_action == self.plan[0]:
            del self.plan[0]
        else:
            room = self.world.room
            self.plan = self.solver.solve(room.player, room.boxes) or []
        if not self.plan:
            raise ExpertLostError("There is no way, or none that was found, to solve this room.")
        return self.plan[0]


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    """The fewest moves from wherever the room stands."""
    world: Any = env.unwrapped
    return Guide(world, Solver(world.room.floor, world.room.targets))
