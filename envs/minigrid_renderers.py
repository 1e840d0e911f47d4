"""What a minigrid agent sees as signs and as data, and what makes lines of it."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from weakref import WeakSet

import gymnasium
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.minigrid_env import MiniGridEnv

from lang_agent.errors import LangAgentError

from .minigrid_words import (
    DOOR,
    WALL,
    Sight,
    color_name,
    kind_name,
    sights,
    state_name,
    view_size,
)

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
    width, height = view_size(image)
    symbols = _letters(ASCII_SYMBOLS, OBJECT_TO_IDX, (*ASCII_DOORS.values(), ASCII_AGENT))
    shades = _letters(ASCII_COLORS, COLOR_TO_IDX)

    def drawn(x: int, y: int) -> str:
        kind, color, state = image[x, y].tolist()
        symbol = ASCII_DOORS[state_name(state)] if kind == DOOR else symbols[kind_name(kind)]
        return symbol + (shades[color_name(color)] if kind > WALL else symbol)

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
    width, height = view_size(image)
    middle, last = width // 2, height - 1

    def thing(x: int, y: int) -> dict[str, Any]:
        kind, color, state = image[x, y].tolist()
        door = {"state": state_name(state)} if kind == DOOR else {}
        return {"type": kind_name(kind), "color": color_name(color), **door}

    objects = [
        {**thing(x, y), "right": x - middle, "forward": last - y}
        for x in range(width)
        for y in range(height)
        if image[x, y, 0] > WALL and (x, y) != (middle, last)
    ]
    walls = {}
    for thing_seen in (sight.thing for sight in sights(image)):
        if thing_seen["kind"] == "wall":
            steps = thing_seen["right"] or thing_seen["forward"]
            walls[thing_seen["place"].split()[-1]] = abs(steps)
    carried = thing(middle, last) if image[middle, last, 0] > WALL else None
    return {"carrying": carried, "walls": walls, "objects": objects}


def _as_lines(lines: Callable[[np.ndarray], list[str]], image: np.ndarray) -> list[Sight]:
    """Lines that tell of no single thing."""
    return [Sight(line, {"name": line, "said": line, "brief": line}) for line in lines(image)]


def _as_json(image: np.ndarray) -> list[str]:
    return [json.dumps(structured(image))]


@dataclass(frozen=True)
class GridRenderer:
    """Puts what an agent sees of a grid into lines."""

    sights: Callable[[np.ndarray], Iterable[Sight]]
    observation_alone: ClassVar[bool] = True
    """It tells what it sees, and needs nothing of the world."""
    legend: str = ""
    """What its signs stand for, for people; no prompt has it."""

    def __call__(self, observation: Any, env: gymnasium.Env) -> dict[str, Any]:
        image, mission = seen(observation, env)
        found = list(self.sights(image))
        return {
            "mission": mission,
            "descriptions": [sight.sentence for sight in found],
            "things": [sight.thing for sight in found],
        }


def seen(observation: Any, env: gymnasium.Env) -> tuple[np.ndarray, str]:
    """The image of what the agent sees, checked once an environment, and the mission."""
    known = observation if isinstance(observation, Mapping) else {"image": observation}
    world: Any = env.unwrapped
    image: Any = known.get("image")
    mission = known.get("mission")
    if world not in _CHECKED:
        _check(image, env)
        _CHECKED.add(world)
    return image, mission if isinstance(mission, str) else world.mission


_CHECKED: WeakSet[gymnasium.Env] = WeakSet()


def _check(image: Any, env: gymnasium.Env) -> None:
    """Refuse an image that a wrapper made of what the agent sees, though it may have the shape of
    it: the whole grid, colours of a picture."""
    size, _ = view_size(image)
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


IN_VIEW = {
    "babyai": GridRenderer(sights),
    "babyai_fr": GridRenderer(partial(sights, language="fr")),
    "ascii": GridRenderer(partial(_as_lines, ascii_map), ASCII_LEGEND),
    "json": GridRenderer(partial(_as_lines, _as_json)),
}
"""What is in the agent's view, seen from where it stands."""
