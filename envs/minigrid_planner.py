"""A faster expert for BabyAI: what to do next is planned anew at every step, from memory alone.

It decides by what was seen, what is carried and which parts of the instruction are done, and by
nothing else: so its action is a function of what a prompt with the remembered map tells, and can be
learned from it. minigrid's own bot keeps a stack of plans, explores in an order of its own, and
takes several times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_TO_IDX
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
)

from lang_agent.language_env import ExpertLostError

from .minigrid_memory import KEY, Memory

THERE = -1  # the target is right ahead


class Planner:
    """The expert of one episode."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.world: Any = env.unwrapped
        self.memory = Memory(self.world)

    def __call__(self, last_action: Any) -> Any:
        memory, world = self.memory, self.world
        memory.look(world.gen_obs()["image"], world)
        self.passable = memory.floor | (memory.doors & ~memory.locked) | 1 << memory.at
        self.region = memory.flood(1 << memory.at, self.passable)
        action = self._next(current(world.instrs))
        if action is None:
            raise ExpertLostError("The planner finds no way to go on.")
        # Who faces what is to be gone to must do something for it to count: against a thing or a
        # closed door, nothing happens by dropping.
        return Actions.drop if action == THERE else action

    def _next(self, task: Instr) -> Any:
        carrying = self.world.carrying
        if isinstance(task, GoToInstr):
            targets = self._known(task.desc)
            if not targets and _is_one_of(carrying, task.desc):
                return self._put_down()
            return _or(self._go(targets), self._search)
        if isinstance(task, OpenInstr):
            return self._open(self._known(task.desc))
        if isinstance(task, PickupInstr):
            targets = self._known(task.desc)
            if not targets and _is_one_of(carrying, task.desc):
                return self._put_down()
            return _or(self._fetch(targets), self._search)
        return self._put_next(task)

    def _open(self, doors: int) -> Any:
        locked = self.memory.locked
        for some in (doors & ~locked, doors & locked):
            action = self._use(some) if some & ~locked else self._unlock(some)
            if action is not None:
                return action
        return self._search()

    def _put_next(self, task: Any) -> Any:
        memory = self.memory
        at, fixed = 1 << memory.at, self._known(task.desc_fixed)
        free, taken = memory.beside(fixed) & memory.floor, memory.beside(fixed) & memory.things
        in_place = 0 if free else taken  # of what is to be put there
        if _is_one_of(self.world.carrying, task.desc_move):
            action = self._toward(free & ~at, self.passable)
            if action is None:
                action = self._step_aside() if free & at else self._go(free)
            if action == THERE:
                return Actions.drop
            return _or(_or(action, lambda: self._fetch(in_place)), self._search)
        # Hands are full on the way there, so it has to be free before.
        goal = free or taken
        far = goal if not goal & at else 0
        if far and self._toward(far, self.passable) is None and self._reachable(far):
            return self._go(far)
        if (not goal and not self._unseen()) or (goal and not self._reachable(goal)):
            action = self._search()
            if action is not None:
                return action
        moved = self._known(task.desc_move)
        return _or(_or(self._fetch(in_place), lambda: self._fetch(moved)), self._search)

    def _step_aside(self) -> Any:
        """Off the cell where the agent stands, to put something there."""
        memory = self.memory
        action = self._toward(memory.beside(1 << memory.at) & memory.floor, self.passable)
        return Actions.forward if action == THERE else action

    def _known(self, desc: ObjDesc) -> int:
        """Where things of this description were seen."""
        found = 0
        for thing in desc.obj_set:
            if thing is not self.world.carrying and thing.cur_pos is not None:
                found |= 1 << int(thing.cur_pos[1]) * self.memory.width + int(thing.cur_pos[0])
        return found & self.memory.known & (self.memory.things | self.memory.doors)

    def _unseen(self) -> int:
        """Cells that were not seen and lie beside one that can be reached."""
        return self.memory.beside(self.region) & ~self.memory.known

    def _reachable(self, targets: int) -> bool:
        return bool(self.memory.beside(targets) & self.region) or bool(self._in_the_way(targets))

    def _use(self, targets: int) -> Any:
        action = self._go(targets)
        return Actions.toggle if action == THERE else action

    def _fetch(self, targets: int) -> Any:
        if not targets or not self._reachable(targets):
            return None
        if self.world.carrying is not None:
            return self._put_down()
        action = self._go(targets)
        return Actions.pickup if action == THERE else action

    def _go(self, targets: int) -> Any:
        """The next action on the way to face one of some cells; things in the way are taken off
        it. None where no way is known."""
        if not targets:
            return None
        action = self._toward(targets, self.passable)
        if action is not None:
            return action
        blocking = self._in_the_way(targets)
        if not blocking:
            return None
        if self.world.carrying is not None:
            return self._put_down()
        action = self._toward(blocking, self.passable)
        return Actions.pickup if action == THERE else action

    def _in_the_way(self, targets: int) -> int:
        """Things within reach without which there would be a way, or a part of one, to targets."""
        memory = self.memory
        near = memory.beside(self.region) & memory.things
        beyond = targets
        while True:
            gates = memory.beside(beyond) & memory.things & ~beyond
            if gates & near:
                return gates & near
            wider = memory.flood(beyond | gates, self.passable | gates | targets)
            if wider == beyond:
                return 0
            beyond = wider

    def _search(self) -> Any:
        """Look for what was not seen yet: in the room the agent is in, past doors that were opened,
        behind closed ones, past things in the way, and behind locked doors at last.

        Of closed doors those of the room come first, and the one found last before others. Were it
        the nearest, one who is not sure of the distances would turn to and fro between two of them.
        """
        memory = self.memory
        unseen = memory.all & ~memory.known
        room = memory.flood(1 << memory.at, memory.floor)
        for ways in (room, self.passable):
            action = self._toward(memory.beside(ways & ~memory.closed) & unseen, ways)
            if action is not None:
                return action
        for place in memory.hiding(room):
            action = self._toward(1 << place, self.passable)
            if action is not None:
                return Actions.toggle if action == THERE else action
        action = self._go(memory.beside(self.passable | memory.things) & unseen)
        return self._unlock(memory.locked) if action is None else action

    def _unlock(self, doors: int) -> Any:
        memory, carrying = self.memory, self.world.carrying
        keys: dict[int, int] = {}
        for place, (kind, color, _) in memory.cells.items():
            if kind == KEY:
                keys[color] = keys.get(color, 0) | 1 << place
        held = COLOR_TO_IDX[carrying.color] if carrying and carrying.type == "key" else None
        for place in [place for place in memory.cells if doors >> place & 1]:
            door, color = 1 << place, memory.cells[place][1]
            key = keys.get(color, 0)
            if not self._reachable(door) or not (color == held or (key and self._reachable(key))):
                continue
            if self._toward(door, self.passable) is None:  # something stands in the way
                action = self._go(door)
            else:
                action = self._use(door) if color == held else self._fetch(key)
            if action is not None:
                return action
        return None

    def _put_down(self) -> Any:
        """Where it is in nobody's way: not beside a door, where it parts nothing in two and cuts
        nothing off."""
        memory = self.memory
        free = memory.floor & ~(1 << memory.at)
        within = memory.beside(self.region) & (memory.things | memory.doors)
        for spots in (free & ~memory.beside(memory.doors), free):
            for spot in self._nearest(spots):
                left = self.region & ~spot
                if memory.flood(1 << memory.at, left) == left and not within & ~memory.beside(left):
                    action = self._toward(spot, self.passable)
                    return Actions.drop if action == THERE else action
        return None

    def _nearest(self, spots: int) -> Iterator[int]:
        """The cells of a set, one by one: right ahead, to the right, to the left, then by number of
        steps."""
        memory = self.memory
        facing = memory.facing
        for turn in (0, 1, -1):
            spot = 1 << memory.at + memory.steps[(facing + turn) % 4] & spots
            if spot:
                yield spot
        near = reached = 1 << memory.at
        while near:
            near = memory.beside(near) & self.region & ~reached
            reached |= near
            found = near & spots
            while found:
                yield found & -found
                found &= found - 1

    def _toward(self, targets: int, through: int) -> Any:
        """The first action of a shortest way to a cell beside a target and facing it, THERE where
        the agent does, None without a way. Out of a room it is shortest in steps, up to the door in
        steps and turns."""
        door = self.memory.first_door(targets, through)
        if not door:
            return self._straight_toward(targets, through)
        action = self._straight_toward(door, through)
        if action != THERE:
            return action
        return Actions.toggle if self.memory.closed & door else Actions.forward

    def _straight_toward(self, targets: int, through: int) -> Any:
        """The first action of a way that is shortest with turns counted; straight on comes before
        a turn."""
        memory = self.memory
        at, facing = 1 << memory.at, memory.facing
        through |= at
        right, down = 1, memory.width
        new = [
            targets >> right & through,
            targets >> down & through,
            targets << right & through,
            targets << down & through,
        ]
        if new[facing] & at:
            return THERE
        seen = list(new)
        while new[0] or new[1] or new[2] or new[3]:
            east, south, west, north = new
            turned = (south | north, east | west)
            old = new
            new = [
                (east >> right & through | turned[0]) & ~seen[0],
                (south >> down & through | turned[1]) & ~seen[1],
                (west << right & through | turned[0]) & ~seen[2],
                (north << down & through | turned[1]) & ~seen[3],
            ]
            if new[facing] & at:
                ahead = memory.at + memory.steps[facing]
                if old[facing] >> ahead & 1:
                    return Actions.toggle if memory.closed >> ahead & 1 else Actions.forward
                return Actions.left if old[facing - 1] & at else Actions.right
            seen = [before | now for before, now in zip(seen, new, strict=True)]
        return None


def _or(action: Any, otherwise: Callable[[], Any]) -> Any:
    """The action, or another where it is None (to turn left is 0)."""
    return otherwise() if action is None else action


def current(task: Instr) -> Instr:
    """The part of an instruction that is to be done now, the first where the order is free."""
    while isinstance(task, (BeforeInstr, AndInstr, AfterInstr)):
        if isinstance(task, AfterInstr):
            task = task.instr_b if task.b_done != "success" else task.instr_a
        else:
            task = task.instr_a if task.a_done != "success" else task.instr_b
    return task


def _is_one_of(thing: Any, desc: ObjDesc) -> bool:
    return any(thing is one for one in desc.obj_set)
