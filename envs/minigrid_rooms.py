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
from .minigrid_memory import Memory
from .minigrid_planner import Planner
from .minigrid_renderers import seen
from .minigrid_view import DIRECTIONS
from .minigrid_words import DOOR, FRENCH, KEY, color_name, kind_name, state_name

SIDES = ("on your left", "on your right", "in front of you", "behind you")
PARTS = re.compile(r", then | after you | and ")
SEQUENCES = (BeforeInstr, AndInstr, AfterInstr)
UNSEEN_HERE, UNSEEN_THERE = 3, 1  # unexplored places that are told of, here and in another room


ENGLISH = {
    "room": "Room", "here": "Here, room", "doorway": "In a doorway", "doors": "Doors", "to": " to ",
    "unexplored": "unexplored", "tried": "Tried", "carry": "You carry a", "opens": " opens ",
}  # fmt: skip
IN_FRENCH = {
    "room": "Salle", "here": "Ici, salle", "doorway": "Dans une porte", "doors": "Portes",
    "to": " vers ", "unexplored": "inexploré", "tried": "Essayé",
    "carry": "Tu portes une", "opens": " ouvre ", "forward": "devant", "left": "à gauche",
    "right": "à droite", "behind": "derrière", "on your left": "à ta gauche",
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
    """A line for each room that was seen, with the things in it, then the doors between them. The
    mission is what is left of it: its parts that are not done yet.

    Places are told from where the agent stands and faces now. The agent knows them by dead
    reckoning from its own moves; rooms are what walls and doors part, numbered as they were found.
    A side that the mission tells things apart by ("on your left", at the start) is told, in the
    mission's words, of all things in the first room that lay there. A part is done when the agent
    did it; it could know by itself. Of a locked door it is told which key opens it, as the rules
    have it, unless keys go by another name, which is to be found out: then what was held before a
    locked door to no effect was tried on it.
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
        self.rooms: list[int] = []  # one cell of each, in the order in which they were found
        self.moved: dict[int, tuple[str, ...]] = {}  # where the agent put something, and its sides
        self.sides: tuple[str, ...] = ()  # those of what is carried
        self.tried: list[tuple[int, int]] = []  # types and colours of what opened no door
        self.asked: list[str] = []  # sides that the mission names

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
        regions = self._regions()
        if (held is None) != (memory.carried is None):
            if held is None:
                self.sides = self.moved.pop(ahead, ()) or self._sides(ahead, regions[0])
            else:
                self.moved[ahead] = self.sides
        lines = list(self._lines(regions))
        if self.tried:
            tried = ", ".join(self._name(*one) for one in self.tried)
            lines.append(f"{self.words['tried']}: {tried}")
        return {"mission": mission, "descriptions": lines}

    def _regions(self) -> list[int]:
        """The rooms as sets of cells."""
        memory = self.memory
        inside = memory.floor & ~memory.doors | memory.things | 1 << memory.at & ~memory.doors
        left, found, cells = inside, [], []
        for cell in [*self.rooms, None]:
            while left and (cell is None or cell & left):
                region = memory.flood(cell or left & -left, inside)
                left &= ~region
                cells.append(cell or region & -region)
                found.append(region)
                if cell is not None:
                    break
        self.rooms = cells
        return found

    def _lines(self, regions: list[int]) -> Iterator[str]:
        memory, words = self.memory, self.words
        if memory.carried:
            yield f"{words['carry']} {self._name(*memory.carried)}"
        here = next((n for n, region in enumerate(regions) if region >> memory.at & 1), None)
        walls = ", ".join(self._walls())
        for number, region in enumerate(regions):
            if number != here:
                said = ", ".join(self._inside(region, UNSEEN_THERE, regions))
                if said:
                    yield f"{words['room']} {number + 1}: {said}"
        others = memory.doors & ~(1 << memory.at)
        doors = [place for place in reversed(memory.cells) if others >> place & 1]
        if doors:
            said = ", ".join(self._door(place, regions) for place in doors)
            yield f"{words['doors']}: {said}"
        place = words["doorway"] if here is None else f"{words['here']} {here + 1}"
        inside = [] if here is None else self._inside(regions[here], UNSEEN_HERE, regions)
        yield f"{place}: {', '.join([walls, *inside])}"

    def _inside(self, region: int, unseen: int, regions: list[int]) -> list[str]:
        memory = self.memory
        things = sorted(_cells(region & memory.things), key=self._steps)
        edge = memory.beside(region & memory.floor) & ~memory.known
        return [self._thing(place, regions) for place in things] + [
            f"{self.words['unexplored']} {self._place(place)}"
            for place in sorted(_cells(edge), key=self._steps)[:unseen]
        ]

    def _thing(self, place: int, regions: list[int]) -> str:
        kind, color, state = self.memory.cells[place]
        name = self._name(kind, color, state_name(state) if kind == DOOR else "")
        if self.tells_keys and self.memory.locked >> place & 1:
            name = self._name(KEY, color) + self.words["opens"] + name
        if self.asked:
            sides = self.moved.get(place)
            sides = self._sides(place, regions[0]) if sides is None else sides
            name = " ".join((name, *(self._word(side) for side in sides if side in self.asked)))
        return f"{name} {self._place(place)}"

    def _door(self, place: int, regions: list[int]) -> str:
        beside = self.memory.beside(1 << place)
        between = [str(n + 1) for n, region in enumerate(regions) if region & beside]
        return f"{self._thing(place, regions)} {self.words['to'].join(between)}"

    def _sides(self, place: int, first: int) -> tuple[str, ...]:
        """On which sides of the agent something in the first room lay at the start."""
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
