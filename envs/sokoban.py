"""Sokoban: push every box onto a target. Rooms are drawn anew for every episode, by playing
backwards from the solved room, so that each can be solved.

A level of one's own is written as Sokoban's levels are everywhere (XSB): ``#`` wall, ``@`` player,
``+`` player on a target, ``$`` box, ``*`` box on a target, ``.`` target; rows end with a line break
or ``|``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register as register_env

from lang_agent.errors import LangAgentError
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import World

from .sokoban_solver import MOVES, Cell, expert, moved, reach
from .toy_text import place

PHRASES = ("move up", "move right", "move down", "move left")  # in the order of MOVES
MISSION = "push every box onto a target"
LEGEND = "# wall, @ you, + you on a target, $ box, * box on a target, . target"
SIGNS = {(0, 0, 0): " ", (0, 0, 1): ".", (0, 1, 0): "$", (0, 1, 1): "*", (1, 0, 0): "@",
         (1, 0, 1): "+"}  # fmt: skip
SIZES, BOXES = range(5, 21), range(1, 9)
WALLS = 0.2  # of the inside, before what cannot be reached is walled up
PULLS = 20  # backwards, for each box
TRIES = 1000
EMPTY, WALL, BOX, GOAL = 1, 2, 7, 8  # minigrid's codes, which maps are drawn by
GREEN, YELLOW, GREY = 1, 4, 5


@dataclass(frozen=True)
class Room:
    """A room as it stands; places are (row, column), from 0."""

    floor: frozenset[Cell]
    targets: frozenset[Cell]
    boxes: frozenset[Cell]
    player: Cell

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, with the walls around."""
        return max(row for row, _ in self.floor) + 2, max(column for _, column in self.floor) + 2

    @property
    def done(self) -> int:
        """How many boxes stand on targets."""
        return len(self.boxes & self.targets)

    def after(self, action: int) -> Room:
        """The room after a move; the same one where a wall or a second box is in the way."""
        to = moved(self.player, action)
        if to in self.boxes:
            behind = moved(to, action)
            if behind not in self.floor or behind in self.boxes:
                return self
            return replace(self, player=to, boxes=self.boxes - {to} | {behind})
        return replace(self, player=to) if to in self.floor else self


class Sokoban(gymnasium.Env):
    """A room with as many targets as boxes.

    The reward of a step is the share of the boxes that it put onto targets, less the share that it
    pushed off them: 1 in all for a solved room in which no box stood on a target at the start.

    Args:
        width: of the room, with the walls around; likewise ``height``.
        boxes: how many there are.
        max_steps: after which the episode is cut off.
        level: this level instead, in every episode.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        width: int = 7,
        height: int = 7,
        boxes: int = 2,
        max_steps: int = 120,
        level: str | None = None,
    ) -> None:
        for name, value, allowed in (
            ("width", width, SIZES),
            ("height", height, SIZES),
            ("boxes", boxes, BOXES),
            ("max_steps", max_steps, range(1, 10**6)),
        ):
            if type(value) is not int or value not in allowed:
                raise LangAgentError(
                    f"{name}={value!r} must be a whole number from {allowed[0]} to {allowed[-1]}."
                )
        self.boxes, self.max_steps, self.render_mode = boxes, max_steps, None
        self.level = None if level is None else read_level(level)
        self.size = (height, width) if self.level is None else self.level.size
        self.room = self.level or draw_room(np.random.default_rng(0), self.size, boxes)
        self.direction, self._steps = 0, 0
        self.action_space = gymnasium.spaces.Discrete(len(MOVES))
        self.observation_space = gymnasium.spaces.Box(0, 127, self.size, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.room = self.level or draw_room(self.np_random, self.size, self.boxes)
        self.direction, self._steps = 0, 0
        return self._seen(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        before = self.room
        self.room, self.direction = before.after(int(action)), int(action)
        self._steps += 1
        reward = (self.room.done - before.done) / len(self.room.boxes)
        solved = self.room.done == len(self.room.boxes)
        return self._seen(), reward, solved, self._steps >= self.max_steps, self._info()

    def _seen(self) -> np.ndarray:
        """The level's characters, as numbers."""
        return np.array([list(line.encode()) for line in drawn(self.room, self.size)], np.uint8)

    def _info(self) -> dict[str, Any]:
        return {"progression": self.room.done / len(self.room.boxes)}


# -- rooms -----------------------------------------------------------------------------------------


def draw_room(random: np.random.Generator, shape: tuple[int, int], boxes: int) -> Room:
    """A room that can be solved, with no box on a target.

    Raises :class:`LangAgentError` where that many boxes find no room.
    """
    for _ in range(TRIES):
        room = _played_backwards(random, _floor(random, shape), boxes)
        if room is not None and not room.done:
            return room
    rows, columns = shape
    raise LangAgentError(
        f"No room of width={columns} and height={rows} with boxes={boxes} was found in {TRIES} "
        "draws: ask for fewer boxes, or for a larger room."
    )


def _floor(random: np.random.Generator, shape: tuple[int, int]) -> list[Cell]:
    """The largest part that hangs together of what is left between walls drawn at random."""
    rows, columns = shape
    inside = [(row, column) for row in range(1, rows - 1) for column in range(1, columns - 1)]
    left = frozenset(cell for cell in inside if random.random() >= WALLS)
    largest: set[Cell] = set()
    while left:
        part = {*reach(min(left), left)}
        left -= part
        largest = max(largest, part, key=len)
    return sorted(largest)


def _played_backwards(random: np.random.Generator, cells: list[Cell], boxes: int) -> Room | None:
    """Boxes on their targets, and then pulled about; None where there is no room for it."""
    if len(cells) < 2 * boxes + 1:
        return None
    floor = frozenset(cells)
    placed = [cells[at] for at in random.permutation(len(cells))[: boxes + 1]]
    room = Room(floor, frozenset(placed[1:]), frozenset(placed[1:]), placed[0])
    for _ in range(PULLS * boxes):
        pulls = list(_pulls(room))
        if not pulls:
            break
        room = pulls[random.integers(len(pulls))]
    walks = sorted(reach(room.player, floor - room.boxes))
    return replace(room, player=walks[random.integers(len(walks))])


def _pulls(room: Room) -> Iterator[Room]:
    """What the room may have been before the last push."""
    free = room.floor - room.boxes
    walks = reach(room.player, free)
    for box in sorted(room.boxes):
        for action in range(len(MOVES)):
            to, player = moved(box, action), moved(box, action, 2)
            if to in walks and player in free:
                yield replace(room, player=player, boxes=room.boxes - {box} | {to})


def read_level(text: str) -> Room:
    """A level as XSB.

    Raises :class:`LangAgentError` for what is no level: not one player, not as many targets as
    boxes, another sign, or a floor that is open to the outside.
    """
    cells = {
        (row, column): sign
        for row, line in enumerate(str(text).strip("\n|").replace("|", "\n").split("\n"))
        for column, sign in enumerate(line)
    }

    def found(signs: str) -> frozenset[Cell]:
        return frozenset(cell for cell, sign in cells.items() if sign in signs)

    strange = sorted({*cells.values()} - {*"#@+$*. -_"})
    players, boxes, targets = found("@+"), found("$*"), found(".+*")
    if strange:
        raise LangAgentError(f"The level has the sign {strange[0]!r}: {LEGEND}.")
    if len(players) != 1 or not boxes or len(boxes) != len(targets):
        raise LangAgentError(
            f"The level has {len(players)} players, {len(boxes)} boxes and {len(targets)} targets: "
            "it needs one player, and as many targets as boxes, at least one."
        )
    (player,) = players
    floor = frozenset(reach(player, frozenset(cells) - found("#")))
    if any(moved(cell, action) not in cells for cell in floor for action in range(len(MOVES))):
        raise LangAgentError("The level is open to the outside: it needs walls all around.")
    if not boxes | targets <= floor:
        raise LangAgentError("The level has a box or a target where the player can never come.")
    if boxes == targets:
        raise LangAgentError("The level is solved already: put a box beside its target.")
    return Room(floor, targets, boxes, player)


def drawn(room: Room, size: tuple[int, int]) -> list[str]:
    """The room as XSB, one line a row."""

    def sign(cell: Cell) -> str:
        if cell not in room.floor:
            return "#"
        return SIGNS[cell == room.player, cell in room.boxes, cell in room.targets]

    return ["".join(sign((row, column)) for column in range(size[1])) for row in range(size[0])]


# -- in words --------------------------------------------------------------------------------------


def sentences(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """Where the player, the boxes, the targets and the floor are: whatever is not said is wall."""
    room: Room = env.unwrapped.room  # type: ignore[attr-defined]
    on = " on a target" if room.player in room.targets else ""
    lines = [f"You stand{on} {place(*room.player)}"]
    for box in sorted(room.boxes):
        lines.append(f"A box stands{' on a target' * (box in room.targets)} {place(*box)}")
    for target in sorted(room.targets - room.boxes - {room.player}):
        lines.append(f"A target is free {place(*target)}")
    for row in sorted({row for row, _ in room.floor}):
        columns = [column + 1 for at, column in sorted(room.floor) if at == row]
        lines.append(f"Row {row + 1} has floor in {_ranges(columns)}")
    return _fields(room, MISSION, lines)


def _ranges(numbers: list[int]) -> str:
    """Increasing numbers in words: ``columns 2 to 4, column 6``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return " and ".join(
        f"columns {part[0]} to {part[-1]}" if len(part) > 1 else f"column {part[0]}"
        for part in parts
    )


def as_ascii(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """The room as XSB, with what the signs mean behind the mission."""
    world: Any = env.unwrapped
    return _fields(world.room, f"{MISSION} ({LEGEND})", drawn(world.room, world.size))


def _fields(room: Room, mission: str, lines: list[str]) -> dict[str, Any]:
    """Admissible is what changes something; or anything, where nothing does."""
    useful = [phrase for action, phrase in enumerate(PHRASES) if room.after(action) is not room]
    known = [*lines, f"You can {', '.join(useful)}"] if useful else lines
    return {"mission": mission, "descriptions": known, "actions": useful or list(PHRASES)}


def cells(env: gymnasium.Env) -> dict[str, Any]:
    """The room in minigrid's codes: yellow boxes, which are green on a target."""
    world: Any = env.unwrapped
    room: Room = world.room
    rows, columns = world.size
    grid: list[int] = []
    for cell in ((row, column) for column in range(columns) for row in range(rows)):
        if cell in room.boxes:
            grid += [BOX, GREEN if cell in room.targets else YELLOW, 0]
        elif cell in room.floor:
            grid += [GOAL if cell in room.targets else EMPTY, GREEN, 0]
        else:
            grid += [WALL, GREY, 0]
    row, column = room.player
    return {
        "size": [columns, rows],
        "grid": grid,
        "agent": [column, row, (world.direction + 3) % 4],
        "carrying": None,
    }


WORLD = World(
    actions={phrase: action for action, phrase in enumerate(PHRASES)},
    renderers={"sentences": sentences, "ascii": as_ascii},
    expert=expert,
    cells=cells,
)


def make(**arguments: Any) -> TextEnv:
    """Sokoban in words; what is no text option goes to :class:`Sokoban`."""
    options = take_text_options(arguments)
    return TextEnv(Sokoban(**arguments), WORLD, **options)


def register() -> None:
    register_env("Sokoban-v0", entry_point=f"{__name__}:make")
