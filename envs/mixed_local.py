"""MixedLocal: the one-room mixture of BabyAI tasks that GLAM and BALROG measure on.

GLAM (Carta et al. 2023, arXiv 2302.02662) trains on it with 8 distractors; BALROG (Paglieri et al.
2024, arXiv 2411.13543) uses it with none and one task at a time. minigrid does not have it. Here
every random draw is made in the published order, so that a seed gives the published episode; only
the draw of the task itself, which the original makes before seeding, comes from the seeded
generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import register as register_env
from minigrid.core.roomgrid import RoomGrid
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from lang_agent.errors import LangAgentError, unknown
from lang_agent.language_env import Achieved
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import GoalDetector

from .held_out import COMPOSITION, PAIRS
from .minigrid import make_world, text_env
from .minigrid_bounds import check_numbers
from .minigrid_goals import goal_detector
from .minigrid_symmetry import draw_symmetry

TASKS = ("goto", "pickup", "open", "putnext", "pick_up_seq_go_to")
UNLOCK = "pick_up_seq_open"  # "open" with its way in words: pick up the key, then open the door
SEQUENCE = "sequence"  # of two of goto, pickup and putnext, but never of two pickups
TRAIN_DOORS = ["yellow", "green", "blue", "purple"]
TEST_DOORS = [color for color, kind in PAIRS if kind == "door"]
ROOM_SIZE = 8


class MixedLocal(LevelGen):
    """One task in one room (``open``: in two rooms with a locked door between them).

    Args:
        task: one of ``TASKS``, or None to draw one at every reset. The published level does not
            have two others, for training: "sequence" draws two of goto, pickup and putnext in a
            row, other than two pickups: what it takes to learn that sequences are sequences; and
            "pick_up_seq_open" is "open" whose mission says what it takes, "pick up a blue key, then
            open the blue door".
        num_dists: objects beside those that the task needs.
        split: "train" never describes an object of ``PAIRS`` in its mission, "test" describes
            no other; the test split also has the task ``pick_up_seq_pick_up``.
    """

    def __init__(
        self, task: str | None = None, num_dists: int = 8, split: str = "train", **kwargs: Any
    ) -> None:
        if split not in ("train", "test"):
            raise unknown("split", split, ("train", "test"))
        tasks = (*TASKS, *((UNLOCK, SEQUENCE) if split == "train" else (COMPOSITION,)))
        if task is not None:
            task = task.replace(" ", "_")
            if task not in tasks:
                raise unknown(f"MixedLocal task for split={split!r}", task, tasks)
        if num_dists < 0:
            raise LangAgentError(f"num_dists={num_dists} must be 0 or more.")
        self.tasks = TASKS if task is None else (task,)
        self.split, self.task = split, self.tasks[0]
        super().__init__(
            room_size=ROOM_SIZE,
            num_rows=1,
            num_cols=_columns(self.task),
            num_dists=num_dists,
            locations=False,
            unblocking=False,
            implicit_unlock=False,
            action_kinds=list(self.tasks),
            **kwargs,
        )

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        return observation, {**info, "task": self.task}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "task": self.task}

    def _gen_grid(self, width: int, height: int) -> None:
        if len(self.tasks) > 1:
            self.task = self._rand_elem(self.tasks)
            self.num_cols = _columns(self.task)
            self.width = width = (ROOM_SIZE - 1) * self.num_cols + 1
        super()._gen_grid(width, height)

    def gen_mission(self) -> None:
        self._rand_elem([self.task])
        while True:
            RoomGrid._gen_grid(self, self.width, self.height)  # an empty grid, new door positions
            reachable = self._attempt()
            if reachable and self._accepted():
                return

    def _attempt(self) -> bool:
        """Draw one mission into ``self.instrs``; whether all objects could be reached."""
        if self.task in ("open", UNLOCK):
            return self._attempt_open()
        self.place_agent()
        if self.task == SEQUENCE:
            return self._attempt_sequence()
        pair = self.task not in ("goto", "pickup")
        objs = self._objects(needed=2 if pair else 1)
        reachable = self.check_objs_reachable(raise_exc=False)
        first = self._rand_elem(objs)
        if not pair:
            desc = ObjDesc(first.type, first.color)
            self.instrs = GoToInstr(desc) if self.task == "goto" else PickupInstr(desc)
            return reachable
        second = self._rand_elem(objs)
        kind = (first.type, first.color)
        alike = [obj for obj in objs if (obj.type, obj.color) == kind]
        while (second.type, second.color) == kind and len(alike) < 2:
            second = self._rand_elem(objs)
        self.instrs = self._pair_mission(ObjDesc(*kind), ObjDesc(second.type, second.color))
        return reachable

    def _pair_mission(self, first: ObjDesc, second: ObjDesc) -> Instr:
        if self.task == "putnext":
            return PutNextInstr(first, second)
        then = PickupInstr if self.task == COMPOSITION else GoToInstr
        return self._in_a_row(PickupInstr(first), then(second))

    def _in_a_row(self, first: Instr, second: Instr) -> Instr:
        if self._rand_elem(["Before", "After"]) == "Before":
            return BeforeInstr(first, second)
        return AfterInstr(second, first)

    def _attempt_sequence(self) -> bool:
        objs = self._objects(needed=4)
        reachable = self.check_objs_reachable(raise_exc=False)
        kinds = [("goto", "pickup", "putnext")[self._rand_int(0, 3)] for _ in range(2)]
        different = list(dict.fromkeys((obj.type, obj.color) for obj in objs))
        if kinds == ["pickup", "pickup"] or len(different) < 4:
            return False
        order = self.np_random.permutation(len(different))
        descs = iter([ObjDesc(*different[at]) for at in order])
        make: dict[str, Callable[[], Instr]] = {
            "goto": lambda: GoToInstr(next(descs)),
            "pickup": lambda: PickupInstr(next(descs)),
            "putnext": lambda: PutNextInstr(next(descs), next(descs)),
        }
        first, second = (make[kind]() for kind in kinds)
        self.instrs = self._in_a_row(first, second)
        return reachable

    def _objects(self, needed: int) -> list[WorldObj]:
        """The room's objects. In the test split those of the mission are drawn from held-out pairs
        (two different ones), before the distractors, and only they can be described."""
        if self.split == "train":
            return self.add_distractors(num_distractors=self.num_dists + needed, all_unique=False)
        pairs = [pair for pair in PAIRS if pair[1] != "door"]
        objs = []
        for _ in range(needed):
            color, kind = pairs.pop(self._rand_int(0, len(pairs)))
            objs.append(self.add_object(0, 0, kind, color)[0])
        self.add_distractors(num_distractors=self.num_dists, all_unique=False)
        return objs

    def _attempt_open(self) -> bool:
        train = self.split == "train"
        color = self._rand_elem(TRAIN_DOORS if train else TEST_DOORS)
        self._add_locked_room(color)
        self.connect_all()
        for i in range(self.num_cols):
            for j in range(self.num_rows):
                if self.get_room(i, j) is not self.locked_room:
                    self.add_distractors(i, j, num_distractors=self.num_dists, all_unique=False)
        while True:
            self.place_agent()
            if self.room_from_pos(*self.agent_pos) is not self.locked_room:
                break
        reachable = self.check_objs_reachable(raise_exc=False)
        if self.task == UNLOCK:
            key, door = ObjDesc("key", color), ObjDesc("door", color)
            self.instrs = self._in_a_row(PickupInstr(key), OpenInstr(door))
            return reachable
        # A test mission always names the colour: "the door" alone would describe no held-out pair.
        named = self._rand_elem([None, color]) if train else color
        self.instrs = OpenInstr(ObjDesc("door", named))
        return reachable

    def _add_locked_room(self, color: str) -> None:
        while True:
            i = self._rand_int(0, self.num_cols)
            j = self._rand_int(0, self.num_rows)
            wall = self._rand_int(0, 4)
            self.locked_room = self.get_room(i, j)
            if self.locked_room.neighbors[wall] is not None:
                break
        self.add_door(i, j, wall, color, locked=True)
        while True:
            i = self._rand_int(0, self.num_cols)
            j = self._rand_int(0, self.num_rows)
            if self.get_room(i, j) is not self.locked_room:
                break
        self.add_object(i, j, "key", color)

    def _accepted(self) -> bool:
        if self.split == "test":
            return True  # drawn from held-out pairs alone
        return self.may_say(self.instrs.surface(self))

    def may_say(self, mission: str) -> bool:
        """Whether the split may have this mission."""
        held_out = any(f"{color} {kind}" in mission for color, kind in PAIRS)
        return held_out == (self.split == "test")


def _columns(task: str) -> int:
    return 2 if task in ("open", UNLOCK) else 1


def make(**kwargs: Any) -> TextEnv:
    """MixedLocal in words; what is no text option goes to :class:`MixedLocal`."""
    options = take_text_options(kwargs)
    check_numbers(MixedLocal, kwargs)
    level = MixedLocal(**kwargs)
    world = replace(
        make_world(level),
        goal_detector=partial(_detector_of, level),
        symmetries=partial(draw_symmetry, may_say=level.may_say),
    )
    return text_env(level, options, world)


def _detector_of(level: MixedLocal, env: gymnasium.Env) -> GoalDetector:
    """A goal_detector that tells of the missions alone that the level's split has."""
    return partial(_said_in, level, goal_detector(env))


def _said_in(level: MixedLocal, tell: GoalDetector, action: Any) -> list[Achieved]:
    return [one for one in tell(action) if level.may_say(one.mission)]


def register() -> None:
    register_env("BabyAI-MixedLocal-v0", entry_point=f"{__name__}:make")
