"""What a minigrid agent sees, in sentences and as the things that they are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from minigrid.core.constants import (
    COLOR_TO_IDX,
    IDX_TO_COLOR,
    IDX_TO_OBJECT,
    OBJECT_TO_IDX,
    STATE_TO_IDX,
)

from lang_agent.errors import LangAgentError

UNSEEN, EMPTY, WALL, DOOR, KEY = 0, 1, 2, 4, 5
FRENCH = {
    "wall": "mur", "floor": "sol", "door": "porte", "key": "clef", "ball": "balle", "box": "boîte",
    "goal": "but", "lava": "lave", "red": "rouge", "green": "verte", "blue": "bleue",
    "purple": "violette", "yellow": "jaune", "grey": "grise", "open": "ouverte",
    "closed": "fermée", "locked": "fermée à clef",
}  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """A sentence, and the thing that it tells of."""

    sentence: str
    thing: Mapping[str, Any]
    """``name`` and ``place`` in words, ``state`` of a door, ``said`` (the sentence without its
    verb), ``brief`` (without the article, too), ``kind`` and ``color`` in minigrid's words, whether
    it is ``carried``, and where it lies: ``right`` and ``forward``, in cells from the agent."""


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
    return [sight.sentence for sight in sights(image, language)]


def sights(image: np.ndarray, language: str = "en") -> Iterator[Sight]:
    """The sentences of :func:`describe`, each with its thing."""
    if language not in ("en", "fr"):
        raise LangAgentError(f"No descriptions in language {language!r}. Choices: en, fr.")
    width, height = view_size(image)
    flat = image.tobytes()  # cell (column, row) starts at 3 * (column * height + row)
    column = 3 * height
    agent = (width // 2) * column + 3 * (height - 1)
    if flat[agent] > WALL:
        yield _carrying(flat[agent], flat[agent + 1], language)
    for direction, stride, reach in (
        ("forward", -3, height - 1),
        ("left", -column, width // 2),
        ("right", column, width - 1 - width // 2),
    ):
        for steps in range(1, reach + 1):
            seen = flat[agent + steps * stride]
            if seen == WALL:
                yield _wall(steps, direction, language)
            if seen > EMPTY:
                break
    for index, kind in enumerate(flat[::3]):
        if kind > WALL and 3 * index != agent:
            color, state = flat[3 * index + 1], flat[3 * index + 2]
            x, y = divmod(index, height)
            yield _object(kind, color, state, x - width // 2, height - 1 - y, language)


def view_size(image: Any) -> tuple[int, int]:
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


def kind_name(number: int) -> str:
    return _named(number, IDX_TO_OBJECT, OBJECT_TO_IDX, "type")


def color_name(number: int) -> str:
    return _named(number, IDX_TO_COLOR, COLOR_TO_IDX, "colour")


def state_name(number: int) -> str:
    """Of a door."""
    return _named(number, {}, STATE_TO_IDX, "state")


@cache
def _carrying(kind: int, color: int, language: str) -> Sight:
    name, shade = kind_name(kind), color_name(color)
    english = language == "en"
    said = f"You carry a {shade} {name}" if english else f"Tu portes une {name} {shade}"
    full = f"{shade} {name}" if english else f"{name} {shade}"
    thing = {"name": full, "place": "", "said": said, "brief": said, "kind": name, "color": shade}
    return Sight(said, {**thing, "state": "", "carried": True, "right": 0, "forward": 0})


@cache
def _wall(steps: int, direction: str, language: str) -> Sight:
    if language == "fr":
        where = {"forward": "devant", "left": "à gauche", "right": "à droite"}[direction]
        opening, article, name, place = "Tu vois ", "un ", "mur", f"à {steps} pas {where}"
    else:
        opening, article, name = "You see ", "a ", "wall"
        place = f"{count_steps(steps)} {direction}"
    right = {"left": -steps, "right": steps}.get(direction, 0)
    thing = {
        "name": name, "place": place, "kind": "wall", "color": "grey", "state": "",
        "carried": False, "right": right, "forward": 0 if right else steps,
    }  # fmt: skip
    return _sight(opening, article, f"{name} {place}", thing)


@cache
def _object(kind: int, color: int, state: int, right: int, forward: int, language: str) -> Sight:
    name, shade = kind_name(kind), color_name(color)
    door = state_name(state) if kind == DOOR else ""
    place = place_in_words(right, forward, language)
    if language == "fr":
        opening, article = "Tu vois ", "une "
        full = f"{FRENCH.get(name, name)} {FRENCH.get(shade, shade)}"
        door = FRENCH.get(door, door)
        brief = " ".join(filter(None, (full, door, place)))
    else:
        opening, article, full = "You see ", "a ", f"{shade} {name}"
        brief = " ".join(filter(None, (door, full, place)))
    thing = {
        "name": full, "place": place, "kind": name, "color": shade, "state": door,
        "carried": False, "right": right, "forward": forward,
    }  # fmt: skip
    return _sight(opening, article, brief, thing)


def _sight(opening: str, article: str, brief: str, thing: dict[str, Any]) -> Sight:
    return Sight(f"{opening}{article}{brief}", {**thing, "said": article + brief, "brief": brief})


def place_in_words(right: int, forward: int, language: str = "en") -> str:
    """Where something lies: so many steps to the right of the agent, and so many ahead."""
    where = []
    if language == "fr":
        if right:
            where.append(f"{abs(right)} pas à {'droite' if right > 0 else 'gauche'}")
        if forward:
            where.append(f"{abs(forward)} pas {'devant' if forward > 0 else 'derrière'}")
        return " et ".join(where)
    if right:
        where.append(f"{count_steps(abs(right))} {'right' if right > 0 else 'left'}")
    if forward:
        where.append(f"{count_steps(abs(forward))} {'forward' if forward > 0 else 'behind'}")
    return " and ".join(where)


def count_steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"
