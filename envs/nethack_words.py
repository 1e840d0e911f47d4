"""A view of NetHack in words of our own: what the game says and asks, what is seen and where, how
far one can go in each direction, how the player fares and what it carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import gymnasium

from .nethack_view import (
    BURDEN,
    CLOSED_DOORS,
    CONDITIONS,
    DIRECTIONS,
    HUNGER,
    STONE,
    WALLS,
    Cell,
    View,
    inside,
)

NEAREST = 3  # unexplored places that are told of
NO_ARTICLE = ("water", "molten lava", "ice", "air", "cloud", "iron bars")


def words(view: View, env: gymnasium.Env) -> dict[str, Any]:
    """Everything in sentences."""
    return _fields(env, [*_said(view), *_seen(view), *_open(view), *_player(view, env)])


def as_map(view: View, env: gymnasium.Env) -> dict[str, Any]:
    """The terminal's map in NetHack's signs, cut to what is known."""
    return _fields(env, [*_said(view), *_map(view), *_player(view, env)])


def words_and_map(view: View, env: gymnasium.Env) -> dict[str, Any]:
    """Both, as BALROG tells language models."""
    lines = [*_said(view), *_seen(view), *_open(view), *_map(view), *_player(view, env)]
    return _fields(env, lines)


RENDERERS = {"words": words, "map": as_map, "words_and_map": words_and_map}


def _fields(env: gymnasium.Env, things: list[dict[str, str]]) -> dict[str, Any]:
    world: Any = env.unwrapped
    return {
        "mission": world.mission,
        "descriptions": [thing["line"] for thing in things],
        "things": [{k: v for k, v in thing.items() if k != "line"} for thing in things],
        "actions": world.admissible(),
    }


def _thing(line: str, name: str = "", place: str = "", said: str = "") -> dict[str, str]:
    brief = f"{name} {place}" if place else line
    return {"line": line, "name": name or line, "place": place, "said": said or line,
            "brief": brief, "state": ""}  # fmt: skip


def _said(view: View) -> Iterator[dict[str, str]]:
    """Messages, and what waits for an answer."""
    *before, last = [*view.messages] or [""]
    for message in before:
        yield _thing(f"The game says: {message}")
    question = view.question
    if question is None:
        if last:
            yield _thing(f"The game says: {last}")
    elif question.kind == "menu":
        if last:
            yield _thing(f"The game says: {last}")
        yield _thing("The game shows a menu: choose, then more, or esc")
        for line in question.lines:
            yield _thing(line)
    else:
        yield _thing(f"The game asks: {last}")
    if view.over:
        yield _thing("The game is over")


def _seen(view: View) -> Iterator[dict[str, str]]:
    """What has a name, the nearest first, and the nearest places from which more would be seen."""
    for thing in view.things:
        yield _at(_with_article(thing.name), thing.name, where(view.player, thing.cell))
    if view.over:
        return
    places = (cell for cell, before in view.walk() if view.unexplored[cell] and cell != before)
    for cell in islice(places, NEAREST):
        yield _at("an unexplored place", "unexplored place", where(view.player, cell))


def _at(said: str, name: str, place: str) -> dict[str, str]:
    return _thing(f"You see {said} {place}", name, place, f"{said} {place}")


def _with_article(name: str) -> str:
    if name in NO_ARTICLE or (name.endswith("s") and not name.endswith("ss")):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def where(player: Cell, cell: Cell) -> str:
    """Of a cell from the player: ``3 steps northeast``, ``1 step north and 4 steps east``."""
    down, right = cell[0] - player[0], cell[1] - player[1]
    if not (down or right):
        return "here"
    upright = "south" if down > 0 else "north"
    across = "east" if right > 0 else "west"
    if abs(down) == abs(right):
        return _steps(abs(down), upright + across)
    parts = [_steps(abs(n), way) for n, way in ((down, upright), (right, across)) if n]
    return " and ".join(parts)


def _steps(number: int, direction: str) -> str:
    return f"{number} step{'s' * (number > 1)} {direction}"


def _open(view: View) -> Iterator[dict[str, str]]:
    """How far one can go in each direction, and what is there."""
    if view.over:
        return
    for name, (down, right) in DIRECTIONS.items():
        cell, steps = view.player, 0
        to = (cell[0] + down, cell[1] + right)
        while view.can_step(cell, to):
            cell, steps = to, steps + 1
            to = (cell[0] + down, cell[1] + right)
        end = _end(view, to)
        free = f"{steps} step{'s' * (steps > 1)}"
        far = f" {free} then" if steps else ""
        said = f"{name}: {free}, then {end}" if steps else f"{name}: {end}"
        thing = _thing(said.capitalize(), end, f"{free} {name}" if steps else name, said)
        yield thing | {"brief": f"{name}{far} {end}"}


def _end(view: View, cell: Cell) -> str:
    """What stops one at a cell."""
    kind = view.terrain[cell] if inside(cell) else STONE
    blocking = view.blocking(cell)
    if blocking is not None:
        return blocking.name
    if kind in WALLS:
        return "wall"
    if kind in CLOSED_DOORS:
        return "closed door"
    if kind == STONE:
        return "rock" if not inside(cell) or view.felt[cell] else "dark"
    return "door frame" if view.passable(cell) else view.symbols[kind]


def _map(view: View) -> Iterator[dict[str, str]]:
    """The rows and columns of the map in which something is known."""
    if view.over:
        return
    rows = view.drawn
    known = [row for row, line in enumerate(rows) if line.strip()]
    if not known:
        return
    first = min(len(line) - len(line.lstrip()) for line in rows if line.strip())
    for line in rows[known[0] : known[-1] + 1]:
        yield _thing(line[first:])


def _player(view: View, env: gymnasium.Env) -> Iterator[dict[str, str]]:
    """How the player fares; what it carries, where there is something that it can do with it."""
    if view.over:
        return
    world: Any = env.unwrapped
    stats: Mapping[str, int] = view.stats
    has = [f"{stats['hp']} of {stats['max_hp']} hit points"]
    if world.uses_things:
        has += [
            f"{stats['energy']} of {stats['max_energy']} energy",
            f"{stats['gold']} gold",
            f"armour class {stats['ac']}",
            f"experience level {stats['level']}",
        ]
    yield _thing(f"You have {', '.join(has)}")
    bad = [name for bit, name in enumerate(CONDITIONS) if stats["condition"] & 1 << bit]
    states = [name for name in (HUNGER[stats["hunger"]], BURDEN[stats["burden"]], *bad) if name]
    states += [f"on dungeon level {stats['depth']}"] if world.uses_things else []
    if states:
        yield _thing(f"You are {', '.join(states)}")
    if world.uses_things and view.inventory:
        carried = "; ".join(f"{letter} - {name}" for letter, name in view.inventory)
        yield _thing(f"You carry {carried}")
