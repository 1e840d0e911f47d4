"""Minigrid in words, room by room: what an agent sees and remembers of the whole episode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gymnasium
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    Instr,
    OpenInstr,
)

from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert

from .minigrid_bot import expert as bot
from .minigrid_memory import BALL, BOX, KEY, Memory
from .minigrid_planner import Planner
from .minigrid_renderers import seen
from .minigrid_view import DIRECTIONS
from .minigrid_words import DOOR, FRENCH, color_name, kind_name, state_name

SIDES = ("on your left", "on your right", "in front of you", "behind you")
PARTS = re.compile(r", then | after you | and ")
SEQUENCES = (BeforeInstr, AndInstr, AfterInstr)
UNSEEN = 3  # unexplored places that are told of, in the room and elsewhere


ENGLISH = {
    "here": "Here", "doors": "Doors", "elsewhere": "Elsewhere", "on": "and on",
    "unexplored": "unexplored", "tried": "Tried", "carry": "You carry a", "fits": "which fits",
    "fitting": "Keys that fit", "may": "which may fit", "untried": "What may fit",
    "blocking": "In the way",
}  # fmt: skip
IN_FRENCH = {
    "here": "Ici", "doors": "Portes", "elsewhere": "Ailleurs", "on": "et plus loin",
    "unexplored": "inexploré", "tried": "Essayé", "carry": "Tu portes une", "fits": "qui ouvre",
    "fitting": "Clés qui ouvrent", "may": "qui ouvre peut-être",
    "untried": "Ce qui ouvre peut-être", "blocking": "Dans le passage", "forward": "devant",
    "left": "à gauche", "right": "à droite", "behind": "derrière", "on your left": "à ta gauche",
    "on your right": "à ta droite", "in front of you": "devant toi",
    "behind you": "derrière toi", **FRENCH,
}  # fmt: skip


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    """Who decides by what these lines tell: the planner; where a key goes by another name, the bot
    that tries."""
    task = getattr(env.unwrapped, "instrs", None)
    hidden = isinstance(task, OpenInstr) and "key" in wording.words
    return bot(env, wording) if task is None or hidden else Planner(env)


class Rooms:
    """What lies in the room and what was seen elsewhere. The mission is what is left of it: its
    parts that are not done yet.

    Places are told from where the agent stands and faces now: it knows them by dead reckoning from
    its own moves. Of what lies elsewhere the door is told by which one gets there, and that it is
    further on. A side that the mission tells things apart by ("on your left", at the start) is
    told, in the mission's words, of all things in the first room that lay there. A part is done
    when the agent did it; it could know by itself.

    A line of its own tells where the keys lie that fit a locked door, as the rules have it; of one
    that is carried it is told that it fits, and else the lock is told before the door's place ("red
    door locked 2 left"). Where keys go by another name, which one fits is to be found out: all
    things of the door's colour may, but for what was held before a locked door to no effect.
    Another line tells what is in the way: things but for which a free way would lead further. What
    is unexplored is told of in the order in which the planner looks at it.
    """

    expert = staticmethod(expert)

    def __init__(self, language: str = "en") -> None:
        self.words = ENGLISH if language == "en" else IN_FRENCH
        self.noun_first = language != "en"

    def begin(self, env: gymnasium.Env, wording: Wording) -> None:
        """Forget everything: an episode begins."""
        world: Any = env.unwrapped
        self.tells_keys = "key" not in wording.words
        self.memory = Memory(world)
        self.start = int(world.agent_pos[0]), int(world.agent_pos[1]), int(world.agent_dir)
        self.moved: dict[int, tuple[str, ...]] = {}  # where the agent put something, and its sides
        self.sides: tuple[str, ...] = ()  # those of what is carried
        self.tried: list[tuple[int, int]] = []  # types and colours of what opened no door
        self.asked: list[str] = []  # sides that the mission names
        self.first = 0  # the room of the beginning, where it names some

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        image, mission = seen(observation, env)
        world: Any = env.unwrapped
        memory = self.memory
        mission = unfinished(getattr(world, "instrs", None), mission)
        self.asked = [side for side in SIDES if side in mission]
        held, before = memory.carried, (memory.at, memory.facing)
        ahead = memory.at + memory.steps[memory.facing]
        memory.look(image, world)
        stayed = before == (memory.at, memory.facing) and held == memory.carried
        if held and stayed and memory.locked >> ahead & 1 and held not in self.tried:
            self.tried.append(held)
        if self.asked:  # of a mission that names none at first, no part does later
            x, y, _ = self.start
            self.first = memory.flood(1 << y * memory.width + x, self._inside())
            if held is None and memory.carried:
                self.sides = self.moved.pop(ahead, ()) or self._sides(ahead)
            elif held and memory.carried is None:
                self.moved[ahead] = self.sides
        lines = list(self._lines("door" in mission))
        if self.tried:
            tried = ", ".join(self._name(*one) for one in self.tried)
            lines.append(f"{self.words['tried']}: {tried}")
        return {"mission": mission, "descriptions": lines}

    def _lines(self, of_doors: bool) -> Iterator[str]:
        """What is told, of doors elsewhere but locked ones only where the mission is of doors."""
        memory = self.memory
        self.ways, beyond, blocking = self._ways()
        self.fitting = self._fitting()
        here = memory.flood(1 << memory.at, self._inside())
        away = sum(1 << place for place, door in self.ways.items() if door)
        near = (here | memory.beside(here)) & ~away
        far = (memory.things | (memory.doors if of_doors else memory.locked)) & ~near
        if memory.carried:
            yield self._carried(memory.carried)
        for word, parts in (
            ("elsewhere", self._elsewhere(far, beyond)),
            ("fitting" if self.tells_keys else "untried", self._keys()),
            ("blocking", self._blocking(blocking)),
            ("doors", self._doors(near)),
            ("here", self._room(here, near)),
        ):
            if parts:
                yield f"{self.words[word]}: {', '.join(parts)}"

    def _carried(self, held: tuple[int, int]) -> str:
        fits = f", {self.words['fits' if self.tells_keys else 'may']}"
        return f"{self.words['carry']} {self._name(*held)}{fits if held in self.fitting else ''}"

    def _elsewhere(self, far: int, beyond: list[int]) -> list[str]:
        """Each once: things and doors of ``far``, the nearest first and last what no way leads to,
        and the doors that lead to what is unexplored."""
        order = dict.fromkeys((*self.ways, *self.memory.cells))
        parts = [self._thing(place) for place in order if far >> place & 1]
        parts += [f"{self.words['unexplored']} {self._way(door)}" for door in beyond]
        return list(dict.fromkeys(parts))

    def _keys(self) -> list[str]:
        """Where lies what opens a locked door, or may do so; nothing where it is in the hand."""
        memory = self.memory
        if memory.carried in self.fitting:
            return []
        keys = [at for at in _cells(memory.things) if memory.cells[at][:2] in self.fitting]
        return [self._place(key) for key in sorted(keys, key=self._steps)]

    def _blocking(self, things: int) -> list[str]:
        """Where things stand that are in the way."""
        return list(dict.fromkeys(self._place(at) for at in self.ways if things >> at & 1))

    def _doors(self, near: int) -> list[str]:
        """Those of this room, but for one that the agent stands in; the last met first."""
        memory = self.memory
        doors = memory.doors & near & ~(1 << memory.at)
        return [self._thing(place) for place in reversed(memory.cells) if doors >> place & 1]

    def _room(self, here: int, near: int) -> list[str]:
        """The walls, the things, and the nearest of what is unexplored."""
        memory = self.memory
        things = sorted(_cells(near & memory.things), key=self._steps)
        edge = memory.beside(here & memory.floor) & ~memory.known
        unseen = sorted(_cells(edge), key=self._steps)[:UNSEEN]
        unexplored = [f"{self.words['unexplored']} {self._place(place)}" for place in unseen]
        return [*self._walls(), *map(self._thing, things), *unexplored]

    def _inside(self) -> int:
        """Cells that are of a room."""
        memory = self.memory
        return memory.floor & ~memory.doors | memory.things

    def _ways(self) -> tuple[dict[int, int], list[int], int]:
        """Things and doors, the nearest first, and the door by which one leaves the room for them
        (0: by none); the doors that lead to what is unexplored, in the planner's order; and the
        things without which there would be a way to a door or to more of the floor."""
        memory = self.memory
        at = 1 << memory.at
        told = (memory.things | memory.doors) & ~at
        ways: dict[int, int] = {}
        beyond: dict[int, None] = {}
        region = 0
        for door, cells in memory.spread(memory.floor | memory.doors & ~memory.locked | at):
            region |= cells
            beside = memory.beside(cells)
            for place in _cells(beside & told):
                ways[place] = door
            told &= ~beside
            if door and memory.beside(cells & ~memory.closed) & ~memory.known:
                beyond[door] = None
        room = memory.flood(at, memory.floor)
        for place in memory.hiding(room):
            if place in ways:
                beyond[ways[place] or 1 << place] = None
        touched = memory.beside(region)
        cut = (memory.floor | memory.doors) & ~region & ~touched
        return ways, [*beyond][:UNSEEN], memory.beside(cut) & memory.things & touched

    def _fitting(self) -> set[tuple[int, int]]:
        """Types and colours of what opens a locked door that was seen, or may do so."""
        kinds = (KEY,) if self.tells_keys else (KEY, BALL, BOX)
        colors = [self.memory.cells[door][1] for door in _cells(self.memory.locked)]
        return {(kind, color) for kind in kinds for color in colors} - set(self.tried)

    def _thing(self, place: int) -> str:
        kind, color, state = self.memory.cells[place]
        name = self._name(kind, color, state_name(state) if kind == DOOR else "")
        if self.memory.locked >> place & 1 and self.memory.carried not in self.fitting:
            name = f"{self._name(kind, color)} {self._word(state_name(state))}"
        if self.asked:
            sides = self.moved.get(place)
            sides = self._sides(place) if sides is None else sides
            name = " ".join((name, *(self._word(side) for side in sides if side in self.asked)))
        return f"{name} {self._place(place)}"

    def _sides(self, place: int) -> tuple[str, ...]:
        """On which sides of the agent something in the first room lay at the start."""
        first = self.first
        if not (first | self.memory.beside(first) & self.memory.doors) >> place & 1:
            return ()
        x, y, facing = self.start
        row, column = divmod(place, self.memory.width)
        right, forward = _turned(column - x, row - y, facing)
        across = () if not right else ("on your left" if right < 0 else "on your right",)
        along = () if not forward else ("behind you" if forward < 0 else "in front of you",)
        return (*across, *along)

    def _walls(self) -> Iterator[str]:
        """How far the nearest wall or door is that way, where it was seen."""
        memory = self.memory
        for turn, name in ((0, "forward"), (-1, "left"), (1, "right"), (2, "behind")):
            step = memory.steps[(memory.facing + turn) % 4]
            place, steps = memory.at + step, 1
            while (memory.floor | memory.things) >> place & 1:
                place, steps = place + step, steps + 1
            if memory.walls >> place & 1:
                yield f"{self._word('wall')} {steps} {self._word(name)}"

    def _place(self, place: int) -> str:
        door = self.ways.get(place, 0)
        return self._way(door) if door else self._direct(place)

    def _way(self, door: int) -> str:
        return f"{self._direct(door.bit_length() - 1)} {self.words['on']}"

    def _direct(self, place: int) -> str:
        right, forward = self._offset(place)
        where = []
        if right:
            where.append(f"{abs(right)} {self._word('right' if right > 0 else 'left')}")
        if forward:
            where.append(f"{abs(forward)} {self._word('forward' if forward > 0 else 'behind')}")
        return " ".join(where)

    def _word(self, word: str) -> str:
        return self.words.get(word, word)

    def _name(self, kind: int, color: int, state: str = "") -> str:
        """What a thing is called, with the state of a door."""
        parts = [color_name(color), kind_name(kind)]
        if self.noun_first:
            return " ".join(self._word(part) for part in (*parts[::-1], state) if part)
        return " ".join(filter(None, (state, *parts)))

    def _offset(self, place: int) -> tuple[int, int]:
        memory = self.memory
        dx = place % memory.width - memory.at % memory.width
        dy = place // memory.width - memory.at // memory.width
        return _turned(dx, dy, memory.facing)

    def _steps(self, place: int) -> tuple[int, int, int]:
        right, forward = self._offset(place)
        return abs(right) + abs(forward), -forward, right


def _turned(dx: int, dy: int, facing: int) -> tuple[int, int]:
    """How far to the right and ahead of who faces this way a cell so many columns and rows away
    lies."""
    fx, fy = DIRECTIONS[facing]
    return dy * fx - dx * fy, dx * fx + dy * fy


def _cells(cells: int) -> Iterator[int]:
    while cells:
        yield (cells & -cells).bit_length() - 1
        cells &= cells - 1


def unfinished(task: Instr | None, mission: str) -> str:
    """The parts of a mission that are not done yet, in its own words; all, where none is left."""
    parts = PARTS.split(mission)
    known = isinstance(task, SEQUENCES) and len(parts) == _count(task)
    return (known and _unfinished(task, iter(parts))) or mission


def _unfinished(task: Instr | None, parts: Iterator[str]) -> str:
    if not isinstance(task, SEQUENCES):
        return next(parts)
    both = [_unfinished(part, parts) for part in (task.instr_a, task.instr_b)]
    done = (task.a_done, task.b_done)
    left = [said for said, flag in zip(both, done, strict=True) if flag != "success"]
    return _between(task).join(left)


def _between(task: Instr | None) -> str:
    if isinstance(task, AndInstr):
        return " and "
    return ", then " if isinstance(task, BeforeInstr) else " after you "


def _count(task: Instr | None) -> int:
    """Of how many parts an instruction is."""
    if isinstance(task, SEQUENCES):
        return _count(task.instr_a) + _count(task.instr_b)
    return 1


class RoomsInFrench(Rooms):
    """The same in French."""

    def __init__(self) -> None:
        super().__init__("fr")
