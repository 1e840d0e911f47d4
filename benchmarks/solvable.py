"""How many of a suite's worlds can be solved at all.

    python benchmarks/solvable.py [TASK...] [--suite babyai] [--episodes 512]

BabyAI's Unlock and GoToImpUnlock mean to keep a key out of the room that it opens, but compare the
rooms' numbers with `is` (minigrid 3.2, `babyai/unlock.py` and `babyai/goto.py`), by which numpy's
are never the same: the only key may lie behind its own door. Here everything is taken as known and
nothing as in the way: what is reached is what lies on this side of locked doors, and behind those
whose key is reached. A world is counted as unsolvable where a part of its mission names nothing
that is reached, so that the share printed is a bound from above on any agent's success.
"""

from __future__ import annotations

import argparse
from typing import Any

from minigrid.envs.babyai.core.verifier import GoToInstr, PutNextInstr, SeqInstr

import lang_agent
from lang_agent.evaluation.tasks import Task, load_suite, read_task
from lang_agent.seeding import EVALUATION_SEED

Cell = tuple[int, int]


def reached(world: Any) -> set[Cell]:
    """Every cell that the agent can come to stand on when things are moved and doors opened."""
    keys: set[str] = set()
    while True:
        found = _reached_with(world, keys)
        things = (world.grid.get(*cell) for cell in found)
        held = {thing.color for thing in things if thing is not None and thing.type == "key"}
        if held <= keys:
            return found
        keys |= held


def _reached_with(world: Any, keys: set[str]) -> set[Cell]:
    start = tuple(int(at) for at in world.agent_pos)
    found, stack = {start}, [start]
    while stack:
        for cell in _beside(stack.pop()):
            thing = world.grid.get(*cell)
            wall = thing is not None and thing.type == "wall"
            shut = thing is not None and thing.type == "door" and thing.is_locked
            if cell not in found and not wall and not (shut and thing.color not in keys):
                found.add(cell)
                stack.append(cell)
    return found


def _beside(cell: Cell) -> list[Cell]:
    x, y = cell
    return [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]


def can_be_fulfilled(instruction: Any, found: set[Cell]) -> bool:
    """Whether each part of this mission names a thing that is among the cells found.

    To go to a thing, or to put another next to it, it is enough to reach a cell beside it.
    """
    if isinstance(instruction, SeqInstr):
        parts = (instruction.instr_a, instruction.instr_b)
        return all(can_be_fulfilled(part, found) for part in parts)
    if isinstance(instruction, PutNextInstr):
        return _any_in(instruction.desc_move, found) and _any_beside(instruction.desc_fixed, found)
    if isinstance(instruction, GoToInstr):
        return _any_beside(instruction.desc, found)
    return _any_in(instruction.desc, found)


def _any_in(description: Any, found: set[Cell]) -> bool:
    return any(tuple(map(int, place)) in found for place in description.obj_poss)


def _any_beside(description: Any, found: set[Cell]) -> bool:
    return any(not found.isdisjoint(_beside((int(x), int(y)))) for x, y in description.obj_poss)


def unsolvable(task: Task, seeds: range) -> list[int]:
    """The seeds of these worlds that no agent can solve."""
    env = lang_agent.make(task.env, **task.arguments)
    none = []
    for seed in seeds:
        env.reset(seed=seed)
        world = env.unwrapped.env.unwrapped
        if not can_be_fulfilled(world.instrs, reached(world)):
            none.append(seed)
    env.close()
    return none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--suite", default="babyai")
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    options = parser.parse_args()
    tasks = [read_task(name) for name in options.tasks] or load_suite(options.suite).tasks
    for task in tasks:
        seeds = range(options.seed, options.seed + options.episodes)
        none = unsolvable(task, seeds)
        solvable = len(seeds) - len(none)
        print(f"{task.name:24} {solvable} of {len(seeds)}, all but {none or 'none'}", flush=True)


if __name__ == "__main__":
    main()
