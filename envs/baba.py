"""Baba: a puzzle whose rules are words that lie in the grid, and can be pushed.

After the game Baba Is You; written anew as in the Baba Is AI environment of Cloos et al. (2024,
arXiv 2407.13729) and in BALROG's words (Paglieri et al. 2024, arXiv 2411.13543).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import register as register_env

from lang_agent.errors import LangAgentError, unknown
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import World

from .baba_levels import LEVELS, draw, size_of
from .baba_rules import (
    ACTIONS,
    COLORS,
    IDLE,
    OBJECTS,
    PROPERTIES,
    Board,
    Thing,
    board_of,
    play,
)
from .baba_search import ANY_WIN, Part, expert

KINDS = ("empty", "border", "text", *OBJECTS)
NAMES = ("", *COLORS, *OBJECTS, "is", *PROPERTIES)
WORDS = ("is", *OBJECTS, *PROPERTIES, *COLORS)
MISSION = "reach what is win; words are rules, and can be pushed"


class BabaEnv(gymnasium.Env[np.ndarray, int]):
    """Walk, push words, and reach what is "win".

    An observation is what lies on top in each cell: the indices of its kind in ``KINDS`` and of its
    colour or word in ``NAMES``.

    Args:
        level: one of ``LEVELS``, drawn anew from the seed at every reset.
        cells: a board of your own in place of a level: ``[x, y, kind, colour or word]``, x to the
            right and y down; a fifth field that is true fixes a text where it lies. The border
            needs no mention.
        width, height: of that board, with its border.
        max_steps: after which the episode is cut off.
        restart: begin the level anew where nothing is "you" any more, in place of ending.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        level: str | None = None,
        cells: Sequence[Sequence[Any]] | None = None,
        width: int | None = None,
        height: int | None = None,
        max_steps: int = 100,
        restart: bool = False,
    ) -> None:
        if max_steps < 1:
            raise LangAgentError(f"max_steps={max_steps} must be 1 or more.")
        if cells is None:
            if width is not None or height is not None:
                raise LangAgentError("width and height are those of the cells: give cells, too.")
            level = level or "goto_win"
            if level not in LEVELS:
                raise unknown("Baba level", level, LEVELS)
            self._given: Board | None = None
            width, height = size_of(level)
        else:
            if level is not None:
                raise LangAgentError(f"Give level={level!r} or cells, not both.")
            self._given = _given_board(cells, width, height)
            width, height = self._given.width, self._given.height
        self.level, self.max_steps, self.restart = level or "", max_steps, restart
        self.plan: tuple[Part, ...] = ANY_WIN
        self.steps = 0
        self.restarted = False
        self.observation_space = spaces.Box(0, len(NAMES), (height, width, 2), np.uint8)
        self.action_space = spaces.Discrete(len(ACTIONS))  # type: ignore[assignment]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if self._given is not None:
            self._start = self._given
        else:
            self._start, self.plan = draw(self.level, self.np_random)
        self.board, self.steps, self.restarted = self._start, 0, False
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.board, ending = play(self.board, int(action))
        reward = {"win": 1 - 0.9 * self.steps / self.max_steps, "lose": -1.0}.get(ending, 0.0)
        lost = not ending and not self.board.things("you")
        self.restarted = lost and self.restart
        if self.restarted:
            self.board = self._start
        terminated = bool(ending) or (lost and not self.restart)
        truncated = not terminated and self.steps >= self.max_steps
        return self._observation(), reward, terminated, truncated, {}

    def _observation(self) -> np.ndarray:
        codes = np.zeros((len(self.board.cells), 2), dtype=np.uint8)
        for at, stack in enumerate(self.board.cells):
            if stack:
                codes[at] = KINDS.index(stack[-1].kind), NAMES.index(stack[-1].name)
        return codes.reshape(self.observation_space.shape)


def _given_board(cells: Sequence[Sequence[Any]], width: int | None, height: int | None) -> Board:
    """The board of the caller's own cells; raises :class:`LangAgentError` for what is none."""
    if width is None or height is None or width < 3 or height < 3:
        raise LangAgentError(
            f"Cells need a width and a height of 3 or more, border included, not {width} and "
            f"{height}."
        )
    things = []
    for cell in cells:
        try:
            x, y, kind, name, fixed = *cell[:4], bool(cell[4:] and cell[4])
            x, y = int(x), int(y)
        except (TypeError, ValueError):
            raise LangAgentError(
                f"The cell {cell!r} is none of the form [x, y, kind, colour or word]."
            ) from None
        if kind == "border":
            continue
        if kind != "text" and kind not in OBJECTS:
            raise unknown("kind of a Baba cell", kind, ("border", "text", *OBJECTS))
        names = WORDS if kind == "text" else COLORS
        if name not in names:
            raise unknown(f"{'word' if kind == 'text' else 'colour'} of a Baba cell", name, names)
        if not (0 < x < width - 1 and 0 < y < height - 1):
            raise LangAgentError(
                f"The cell {cell!r} lies outside of the border of {width} x {height} cells."
            )
        things.append((x, y, kind, name, fixed))
    board = board_of(width, height, things)
    if not board.things("you"):
        raise LangAgentError("Nothing is 'you' on these cells: add, say, 'baba is you' and a baba.")
    return board


def describe(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """In BALROG's words: no colours and no border, and "steps" only to the right and down."""
    board = _board(env)
    lines = ["Active rules:", *_shown_rules(board), "", "Objects on the map:"]
    for thing, dx, dy in _seen(board):
        if thing.kind not in ("border", "baba"):
            name = f"rule `{thing.name}`" if thing.kind == "text" else thing.kind
            across = f"{abs(dx)} step{'s' * (dx > 1)} to the {'right' if dx > 0 else 'left'}"
            along = f"{abs(dy)} step{'s' * (dy > 1)} {'down' if dy > 0 else 'up'}"
            where = " and ".join([across] * (dx != 0) + [along] * (dy != 0))
            lines.append(f"{name} {where}".strip())
    return _fields(env, lines)


def describe_well(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """With colours, the border, all rules, and grammar."""
    board = _board(env)
    at, you = board.things("you")[0] if board.things("you") else (0, None)
    lines = [f"Rule: {rule}." for rule in board.rules]
    if you is not None:
        x, y = _place(board, at)
        ways = {"up": y, "right": board.width - 1 - x, "down": board.height - 1 - y, "left": x}
        border = ", ".join(f"{_steps(far)} {way}" for way, far in ways.items())
        lines.append(f"You are the {you.name} {you.kind}; the border is {border}.")
    for thing, dx, dy in _seen(board):
        if thing.kind != "border":
            what = (
                f'the word "{thing.name}"'
                if thing.kind == "text"
                else f"a {thing.name} {thing.kind}"
            )
            across = f"{_steps(abs(dx))} {'right' if dx > 0 else 'left'}"
            along = f"{_steps(abs(dy))} {'down' if dy > 0 else 'up'}"
            where = " and ".join([across] * (dx != 0) + [along] * (dy != 0))
            lines.append(f"You see {what} {where or 'where you are'}.")
    return _fields(env, lines)


def _steps(number: int) -> str:
    return f"{number} step" if number == 1 else f"{number} steps"


def _board(env: gymnasium.Env) -> Board:
    world: Any = env.unwrapped
    return world.board


def _fields(env: gymnasium.Env, lines: list[str]) -> dict[str, Any]:
    world: Any = env.unwrapped
    if world.restarted:
        lines = ["Nothing was you any more: the level begins anew.", "", *lines]
    return {"mission": MISSION, "descriptions": lines}


def _shown_rules(board: Board) -> list[str]:
    return [str(rule) for rule in board.rules if rule.what in PROPERTIES]


def _seen(board: Board) -> Iterator[tuple[Thing, int, int]]:
    """What lies on top, and how far to the right and down of the first "you"; but not that."""
    yous = board.things("you")
    at, first = yous[0] if yous else (0, None)
    x, y = _place(board, at)
    for other, stack in enumerate(board.cells):
        if stack and stack[-1] != first:
            other_x, other_y = _place(board, other)
            yield stack[-1], other_x - x, other_y - y


def _place(board: Board, at: int) -> tuple[int, int]:
    return at % board.width, at // board.width


BABA = World(
    actions={action: number for number, action in enumerate(ACTIONS)},
    renderers={"balrog": describe, "plain": describe_well},
    noop=IDLE,
    expert=expert,
)


def make(**kwargs: Any) -> TextEnv:
    """Baba in words; what is no text option goes to :class:`BabaEnv`."""
    options = take_text_options(kwargs)
    return TextEnv(BabaEnv(**kwargs), BABA, **options)


def register() -> None:
    register_env("Baba-v0", entry_point=f"{__name__}:make")
