"""MiniGrid and BabyAI in words: renderers, action phrases, and every id of the minigrid package."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import minigrid
import minigrid.envs.babyai.core.roomgrid_level as roomgrid_level
import numpy as np
from gymnasium.envs.registration import register as register_env
from gymnasium.envs.registration import registry
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT

from lang_agent.errors import LangAgentError
from lang_agent.text_env import TextEnv, World

from .minigrid_bot import expert
from .minigrid_view import use_fast_view
from .minigrid_witness import witness

PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
DONE = 6  # the seventh action of minigrid: nothing happens, except where a level waits for it
WAITS_FOR_DONE = ("GoToDoorEnv", "GoToObjectEnv")

UNSEEN, EMPTY, WALL, DOOR = 0, 1, 2, 4
DOOR_STATES = ("open", "closed", "locked")
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
        language: "en" or "fr". (As in the original, what is carried keeps its English names.)
    """
    if language not in ("en", "fr"):
        raise LangAgentError(f"No descriptions in language {language!r}. Choices: en, fr.")
    width, height, _ = image.shape
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


@cache
def _carrying(kind: int, color: int, language: str) -> str:
    name, shade = IDX_TO_OBJECT[kind], IDX_TO_COLOR[color]
    return f"You carry a {shade} {name}" if language == "en" else f"Tu portes une {name} {shade}"


@cache
def _wall(steps: int, direction: str, language: str) -> str:
    if language == "fr":
        where = {"forward": "devant", "left": "à gauche", "right": "à droite"}[direction]
        return f"Tu vois un mur à {steps} pas {where}"
    return f"You see a wall {_steps(steps)} {direction}"


@cache
def _object(kind: int, color: int, state: int, right: int, forward: int, language: str) -> str:
    name, shade = IDX_TO_OBJECT[kind], IDX_TO_COLOR[color]
    where = []
    if language == "fr":
        if right:
            where.append(f"{abs(right)} pas à {'droite' if right > 0 else 'gauche'}")
        if forward:
            where.append(f"{forward} pas devant")
        door = f" {FRENCH[DOOR_STATES[state]]}" if kind == DOOR else ""
        return f"Tu vois une {FRENCH[name]} {FRENCH[shade]}{door} {' et '.join(where)}"
    if right:
        where.append(f"{_steps(abs(right))} {'right' if right > 0 else 'left'}")
    if forward:
        where.append(f"{_steps(forward)} forward")
    door = f"{DOOR_STATES[state]} " if kind == DOOR else ""
    return f"You see a {door}{shade} {name} {' and '.join(where)}"


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


ASCII_SYMBOLS = {"unseen": " ", "empty": ".", "wall": "#", "floor": "_", "key": "k", "ball": "o",
                 "box": "b", "goal": "g", "lava": "~"}  # fmt: skip
ASCII_DOORS = {"open": "/", "closed": "+", "locked": "L"}


def ascii_map(image: np.ndarray) -> list[str]:
    """The view as a map, one line a row, far to near: a symbol and the colour's initial per cell.

    ``#`` wall, ``.`` floor, blank not seen, ``k`` key, ``o`` ball, ``b`` box, ``/`` ``+`` ``L``
    an open, closed or locked door, ``g`` goal, ``~`` lava, ``^`` the agent, who looks up. Colours:
    r, g, b, p, y, and e for grey.
    """
    width, height, _ = image.shape
    rows = []
    for y in range(height):
        cells = []
        for x in range(width):
            kind, color, state = image[x, y].tolist()
            name = IDX_TO_OBJECT[kind]
            symbol = ASCII_DOORS[DOOR_STATES[state]] if kind == DOOR else ASCII_SYMBOLS[name]
            shade = _initial(color) if kind > WALL else symbol
            cells.append("^^" if (x, y) == (width // 2, height - 1) else symbol + shade)
        rows.append(" ".join(cells))
    carried = image[width // 2, height - 1].tolist()
    if carried[0] > WALL:
        rows.append(f"carrying {ASCII_SYMBOLS[IDX_TO_OBJECT[carried[0]]]}{_initial(carried[1])}")
    return rows


def _initial(color: int) -> str:
    name = IDX_TO_COLOR[color]
    return "e" if name == "grey" else name[0]


def structured(image: np.ndarray) -> dict[str, Any]:
    """The view as data: what is carried, the nearest walls, and every object with its offset."""
    width, height, _ = image.shape
    middle, last = width // 2, height - 1

    def thing(x: int, y: int) -> dict[str, Any]:
        kind, color, state = image[x, y].tolist()
        door = {"state": DOOR_STATES[state]} if kind == DOOR else {}
        return {"type": IDX_TO_OBJECT[kind], "color": IDX_TO_COLOR[color], **door}

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


def _renderer(lines: Callable[[np.ndarray], list[str]]) -> Callable[[Any, Any], dict[str, Any]]:
    def render(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        image = observation["image"]
        return {"mission": observation["mission"], "descriptions": lines(image)}

    return render


RENDERERS = {
    "babyai": _renderer(describe),
    "babyai_fr": _renderer(lambda image: describe(image, "fr")),
    "ascii": _renderer(ascii_map),
    "json": _renderer(lambda image: [json.dumps(structured(image))]),
}


def make_world(env: gymnasium.Env) -> World:
    """The phrases, renderers and expert for one minigrid environment."""
    known = int(env.action_space.n)  # type: ignore[attr-defined]
    actions = dict(zip(PHRASES[:known], range(known), strict=False))
    waits = type(env.unwrapped).__name__ in WAITS_FOR_DONE
    if waits:
        actions["done"] = DONE
    noop = DONE if known > DONE and not waits else None
    babyai = isinstance(env.unwrapped, roomgrid_level.RoomGridLevel)
    return World(
        actions=actions,
        renderers=RENDERERS,
        noop=noop,
        expert=expert,
        witness=witness if babyai else None,
    )


TEXT_OPTIONS = ("renderer", "prompt", "prompt_folder", "invalid_action", "actions", "wording")


def text_env(env: gymnasium.Env, options: dict[str, Any], world: World | None = None) -> TextEnv:
    """``env`` in words, its observation computed the fast way."""
    use_fast_view(env.unwrapped)
    return TextEnv(env, world or make_world(env), **options)


def make(env_id: str, **kwargs: Any) -> TextEnv:
    """The minigrid environment ``env_id`` in words; what is no text option goes to minigrid."""
    options = {name: kwargs.pop(name) for name in TEXT_OPTIONS if name in kwargs}
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
    for env_id in minigrid_ids():
        register_env(env_id, entry_point=f"{__name__}:make", kwargs={"env_id": env_id})
