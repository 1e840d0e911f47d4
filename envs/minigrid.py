"""MiniGrid and BabyAI in words: renderers, action phrases, and every id of the minigrid package."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import gymnasium
import minigrid
import minigrid.envs.babyai.core.roomgrid_level as roomgrid_level
import numpy as np
from gymnasium.envs.registration import load_env_creator, registry
from gymnasium.envs.registration import register as register_env
from minigrid.core.constants import (
    COLOR_TO_IDX,
    IDX_TO_COLOR,
    IDX_TO_OBJECT,
    OBJECT_TO_IDX,
    STATE_TO_IDX,
)
from minigrid.minigrid_env import MiniGridEnv

from lang_agent.errors import LangAgentError, unknown
from lang_agent.text_env.env import TEXT_OPTIONS, TextEnv
from lang_agent.text_env.world import IN_WORDS, World

from .minigrid_bot import expert
from .minigrid_bounds import bound_drawing, check_numbers
from .minigrid_goals import goal_detector
from .minigrid_records import cells, instruction
from .minigrid_view import use_fast_view

PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
DONE = 6  # the seventh action of minigrid: nothing happens, except where a level waits for it
WAITS_FOR_DONE = ("GoToDoorEnv", "GoToObjectEnv")

UNSEEN, EMPTY, WALL, DOOR = 0, 1, 2, 4
FRENCH = {
    "wall": "mur", "floor": "sol", "door": "porte", "key": "clef", "ball": "balle", "box": "boîte",
    "goal": "but", "lava": "lave", "red": "rouge", "green": "verte", "blue": "bleue",
    "purple": "violette", "yellow": "jaune", "grey": "grise", "open": "ouverte",
    "closed": "fermée", "locked": "fermée à clef",
}  # fmt: skip


def describe(image: np.ndarray, language: str = "en") -> list[str]:
    """What the agent sees, in the sentences of BabyAI-Text (Carta et al. 2023, arXiv 2302.02662).

    Args:
        image: minigrid's partial view, (width, height, 3) of type, colour and state, column
            first; the agent stands in the middle of the last row and what it carries shows there.
            Types and colours of one's own go by their names in minigrid's tables.
        language: "en" or "fr". (As in the original, what is carried keeps its English names; so
            do types and colours of one's own.)

    Raises:
        LangAgentError: an array that is no such view, or a type or colour without a name.
    """
    if language not in ("en", "fr"):
        raise LangAgentError(f"No descriptions in language {language!r}. Choices: en, fr.")
    width, height = _size(image)
    flat = image.tobytes()  # cell (column, row) starts at 3 * (column * height + row)
    column = 3 * height
    agent = (width // 2) * column + 3 * (height - 1)
    sentences = []
    if flat[agent] > WALL:
        sentences.append(_carrying(flat[agent], flat[agent + 1], language))
    for direction, stride, reach in (
        ("forward", -3, height - 1),
        ("left", -column, width // 2),
        ("right", column, width - 1 - width // 2),
    ):
        for steps in range(1, reach + 1):
            seen = flat[agent + steps * stride]
            if seen == WALL:
                sentences.append(_wall(steps, direction, language))
            if seen > EMPTY:
                break
    for index, kind in enumerate(flat[::3]):
        if kind > WALL and 3 * index != agent:
            color, state = flat[3 * index + 1], flat[3 * index + 2]
            x, y = divmod(index, height)
            sentences.append(_object(kind, color, state, x - width // 2, height - 1 - y, language))
    return sentences


def _size(image: Any) -> tuple[int, int]:
    """Width and height of a partial view."""
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or not shape[0] % 2 or image.dtype != np.uint8:
        raise LangAgentError(
            f"An observation of shape {tuple(shape)} is not minigrid's partial view, which is "
            "(n, n, 3) bytes of type, colour and state with n odd: take off the wrapper that "
            "changes it, or give renderer=<your own function>."
        )
    return shape[0], shape[1]


def _named(number: int, names: Mapping[int, str], numbers: Mapping[str, int], what: str) -> str:
    """The name of a type, a colour or a state, by either of minigrid's two tables."""
    if number in names:
        return names[number]
    for name, other in numbers.items():
        if other == number:
            return name
    raise LangAgentError(
        f"The observation has an object of {what} {number}, which has no name in minigrid's "
        f"tables: enter it in minigrid.core.constants, or give renderer=<your own function>."
    )


def _kind(number: int) -> str:
    return _named(number, IDX_TO_OBJECT, OBJECT_TO_IDX, "type")


def _shade(number: int) -> str:
    return _named(number, IDX_TO_COLOR, COLOR_TO_IDX, "colour")


def _state(number: int) -> str:
    """Of a door."""
    return _named(number, {}, STATE_TO_IDX, "state")


@cache
def _carrying(kind: int, color: int, language: str) -> str:
    name, shade = _kind(kind), _shade(color)
    return f"You carry a {shade} {name}" if language == "en" else f"Tu portes une {name} {shade}"


@cache
def _wall(steps: int, direction: str, language: str) -> str:
    if language == "fr":
        where = {"forward": "devant", "left": "à gauche", "right": "à droite"}[direction]
        return f"Tu vois un mur à {steps} pas {where}"
    return f"You see a wall {_steps(steps)} {direction}"


@cache
def _object(kind: int, color: int, state: int, right: int, forward: int, language: str) -> str:
    name, shade = _kind(kind), _shade(color)
    where = []
    if language == "fr":
        if right:
            where.append(f"{abs(right)} pas à {'droite' if right > 0 else 'gauche'}")
        if forward:
            where.append(f"{forward} pas devant")
        door = f" {FRENCH.get(_state(state), _state(state))}" if kind == DOOR else ""
        thing = f"{FRENCH.get(name, name)} {FRENCH.get(shade, shade)}"
        return f"Tu vois une {thing}{door} {' et '.join(where)}"
    if right:
        where.append(f"{_steps(abs(right))} {'right' if right > 0 else 'left'}")
    if forward:
        where.append(f"{_steps(forward)} forward")
    door = f"{_state(state)} " if kind == DOOR else ""
    return f"You see a {door}{shade} {name} {' and '.join(where)}"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


ASCII_SYMBOLS = {"unseen": " ", "empty": ".", "wall": "#", "floor": "_", "key": "k", "ball": "o",
                 "box": "b", "goal": "g", "lava": "~", "agent": "@"}  # fmt: skip
ASCII_DOORS = {"open": "/", "closed": "+", "locked": "L"}
ASCII_COLORS = {"red": "r", "green": "g", "blue": "b", "purple": "p", "yellow": "y", "grey": "e"}
ASCII_AGENT = "^"
ASCII_LEGEND = (
    "Two signs a cell, far to near: what is there (## wall, .. nothing, blank not seen, k key, "
    "o ball, b box, / open door, + closed door, L locked door, g goal, ~ lava, @ another agent, "
    "^^ you, who look up) and its colour (r red, g green, b blue, p purple, y yellow, e grey)."
)


def ascii_map(image: np.ndarray) -> list[str]:
    """The view as a map, one line a row, far to near: a symbol and the colour's initial per cell.

    ``#`` wall, ``.`` floor, blank not seen, ``k`` key, ``o`` ball, ``b`` box, ``/`` ``+`` ``L``
    an open, closed or locked door, ``g`` goal, ``~`` lava, ``^`` the agent, who looks up, ``@``
    another one. Colours: r, g, b, p, y, and e for grey. Types and colours of one's own have the
    first letter of their names that no other has.
    """
    width, height = _size(image)
    symbols = _letters(ASCII_SYMBOLS, OBJECT_TO_IDX, (*ASCII_DOORS.values(), ASCII_AGENT))
    shades = _letters(ASCII_COLORS, COLOR_TO_IDX)

    def drawn(x: int, y: int) -> str:
        kind, color, state = image[x, y].tolist()
        symbol = ASCII_DOORS[_state(state)] if kind == DOOR else symbols[_kind(kind)]
        return symbol + (shades[_shade(color)] if kind > WALL else symbol)

    middle, last = width // 2, height - 1
    rows = [
        " ".join(ASCII_AGENT * 2 if (x, y) == (middle, last) else drawn(x, y) for x in range(width))
        for y in range(height)
    ]
    if image[middle, last, 0] > WALL:
        rows.append(f"carrying {drawn(middle, last)}")
    return rows


def _letters(
    fixed: Mapping[str, str], names: Mapping[str, int], taken: Sequence[str] = ()
) -> dict[str, str]:
    """One character for each name, that of no other: the first free letter of the name, or else of
    all letters."""
    found = dict(fixed)
    for name in sorted(names, key=lambda name: names[name]):
        if name not in found and name != "door":
            used = {*found.values(), *taken}
            letters = (*name, *name.upper(), *string.ascii_letters, *string.digits)
            free = (letter for letter in letters if letter.isalnum() and letter not in used)
            found[name] = next(free, name)
    return found


def structured(image: np.ndarray) -> dict[str, Any]:
    """The view as data: what is carried, the nearest walls, and every object with its offset."""
    width, height = _size(image)
    middle, last = width // 2, height - 1

    def thing(x: int, y: int) -> dict[str, Any]:
        kind, color, state = image[x, y].tolist()
        door = {"state": _state(state)} if kind == DOOR else {}
        return {"type": _kind(kind), "color": _shade(color), **door}

    objects = [
        {**thing(x, y), "right": x - middle, "forward": last - y}
        for x in range(width)
        for y in range(height)
        if image[x, y, 0] > WALL and (x, y) != (middle, last)
    ]
    walls = {
        sentence.split()[-1]: int(sentence.split()[4])
        for sentence in describe(image)
        if sentence.startswith("You see a wall")
    }
    carried = thing(middle, last) if image[middle, last, 0] > WALL else None
    return {"carrying": carried, "walls": walls, "objects": objects}


def _in_french(image: np.ndarray) -> list[str]:
    return describe(image, "fr")


def _as_json(image: np.ndarray) -> list[str]:
    return [json.dumps(structured(image))]


@dataclass(frozen=True)
class GridRenderer:
    """Puts what an agent sees of a grid into lines."""

    lines: Callable[[np.ndarray], list[str]]
    legend: str = ""
    """What its signs stand for, for people; no prompt has it."""

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        seen = observation if isinstance(observation, Mapping) else {"image": observation}
        world: Any = env.unwrapped
        image: Any = seen.get("image")
        mission = seen.get("mission")
        if world not in _CHECKED:
            _check(image, env)
            _CHECKED.add(world)
        if not isinstance(mission, str):
            mission = world.mission
        return {"mission": mission, "descriptions": self.lines(image)}


_CHECKED: WeakSet[gymnasium.Env] = WeakSet()


def _check(image: Any, env: gymnasium.Env) -> None:
    """Refuse an image that a wrapper made of what the agent sees, though it may have the shape of
    it: the whole grid, colours of a picture."""
    size, _ = _size(image)
    world: Any = env.unwrapped
    while env is not world and type(env).__module__.startswith("gymnasium."):
        env = env.env  # type: ignore[attr-defined]
    if env is world or not isinstance(world, MiniGridEnv):
        return
    grid, visible = world.gen_obs_grid(size)
    if not np.array_equal(image, grid.encode(visible)):
        raise LangAgentError(
            f"What {type(env).__name__} makes of the observation is not the agent's partial view "
            "any more, so that its sentences would be false: take off that wrapper, or give "
            "renderer=<your own function>."
        )


RENDERERS = {
    "babyai": GridRenderer(describe),
    "babyai_fr": GridRenderer(_in_french),
    "ascii": GridRenderer(ascii_map, ASCII_LEGEND),
    "json": GridRenderer(_as_json),
}


def make_world(env: gymnasium.Env) -> World:
    """The phrases, renderers and expert for one minigrid environment."""
    known = int(env.action_space.n)  # type: ignore[attr-defined]
    actions = dict(zip(PHRASES[:known], range(known), strict=False))
    waits = any(kind.__name__ in WAITS_FOR_DONE for kind in type(env.unwrapped).__mro__)
    if waits:
        actions["done"] = DONE
    noop = DONE if known > DONE and not waits else None
    babyai = isinstance(env.unwrapped, roomgrid_level.RoomGridLevel)
    return World(
        actions=actions,
        renderers=RENDERERS,
        noop=noop,
        expert=expert,
        goal_detector=goal_detector if babyai else None,
        instruction=instruction if babyai else None,
        cells=cells,
    )


def text_env(env: gymnasium.Env, options: dict[str, Any], world: World | None = None) -> TextEnv:
    """``env`` in words, its observation computed the fast way."""
    use_fast_view(env.unwrapped)
    bound_drawing(env.unwrapped)
    return TextEnv(env, world or make_world(env), **options)


def make(env_id: str, **kwargs: Any) -> TextEnv:
    """The minigrid environment ``env_id`` in words; what is no text option goes to minigrid."""
    options = {name: kwargs.pop(name) for name in TEXT_OPTIONS if name in kwargs}
    if env_id not in registry:  # gymnasium.spec would import the module of module:Env-v0
        raise unknown("minigrid environment", env_id, minigrid_ids())
    level: Any = load_env_creator(str(registry[env_id].entry_point))
    check_numbers(level, kwargs)
    return text_env(gymnasium.make(env_id, disable_env_checker=True, **kwargs), options)


def minigrid_ids() -> Sequence[str]:
    """Every id that the minigrid package has registered and can make.

    The wheel of minigrid 3.2 lacks the pattern images of its wave-function-collapse levels, so
    that they fail at reset; they are left out wherever the images are missing.
    """
    has_patterns = (Path(minigrid.__file__).parent / "envs" / "wfc" / "patterns").is_dir()
    return [
        spec.id
        for spec in registry.values()
        if isinstance(spec.entry_point, str)
        and spec.entry_point.startswith("minigrid.")
        and (has_patterns or not spec.entry_point.startswith("minigrid.envs.wfc"))
    ]


def register() -> None:
    # Level generation prints every rejected draw; a library has no business on standard output.
    vars(roomgrid_level)["print"] = lambda *args, **kwargs: None
    IN_WORDS[MiniGridEnv] = text_env  # a user's own levels, too
    for env_id in minigrid_ids():
        register_env(env_id, entry_point=f"{__name__}:make", kwargs={"env_id": env_id})
