"""What an evaluation notes of a minigrid episode: the parts of its mission, and the grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    GoToInstr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)

VERBS: dict[type, str] = {
    GoToInstr: "go to",
    OpenInstr: "open",
    PickupInstr: "pick up",
    PutNextInstr: "put next",
}


def instruction(env: gymnasium.Env) -> dict[str, Any]:
    """What a BabyAI mission is made of: its parts in the order in which they are to be done, those
    of an 'and' as they are said."""
    world: Any = env.unwrapped
    parts = list(_parts(world.instrs))
    things = [thing for part in parts for thing in _things(part)]
    return {
        "verb": ", ".join(VERBS.get(type(part), type(part).__name__) for part in parts),
        "object": ", ".join(thing.type or "object" for thing in things),
        "colour": ", ".join(thing.color or "any" for thing in things),
        "parts": len(parts),
    }


def _parts(instr: Any) -> Iterator[Any]:
    if not isinstance(instr, SeqInstr):
        yield instr
        return
    both = [instr.instr_a, instr.instr_b]
    for one in reversed(both) if isinstance(instr, AfterInstr) else both:
        yield from _parts(one)


def _things(part: Any) -> list[ObjDesc]:
    return [part.desc_move, part.desc_fixed] if isinstance(part, PutNextInstr) else [part.desc]


def cells(env: gymnasium.Env) -> dict[str, Any]:
    """The grid in minigrid's own codes (type, colour, state), what is carried, and the agent."""
    world: Any = env.unwrapped
    carried = world.carrying
    return {
        "size": [world.grid.width, world.grid.height],
        "grid": world.grid.encode().flatten().tolist(),
        "agent": [*map(int, world.agent_pos), int(world.agent_dir)],
        "carrying": None if carried is None else list(map(int, carried.encode()[:2])),
    }
