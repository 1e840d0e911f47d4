"""BabyAI's expert: what it remembers, where it goes, and that it plays every level."""

from __future__ import annotations

import copy
import random
import runpy
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lang_agent.envs.minigrid_memory import CLOSED, Memory
from lang_agent.envs.minigrid_planner import THERE, Planner
from lang_agent.envs.minigrid_words import DOOR
from minigrid.core.actions import Actions

import lang_agent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.evaluation.tasks import read_task
from lang_agent.language_env import ExpertLostError, language_env
from lang_agent.rollout import play

LEVELS = (
    "GoToLocal", "PutNextLocal", "PickupLoc", "GoToObjMaze", "GoTo", "Pickup", "UnblockPickup",
    "Open", "Unlock", "PutNextS7N4", "Synth", "SynthLoc", "GoToSeq", "SynthSeq", "BossLevel",
)  # fmt: skip


def played(level: str, seed: int, noise: float = 0.0) -> tuple[bool, int]:
    """Whether the expert succeeds, a part of its steps taken at random, and after how many."""
    env, draw = lang_agent.make(f"BabyAI-{level}-v0", renderer="rooms"), random.Random(seed)
    _, info = env.reset(seed=seed)
    action, steps, over = None, 0, False
    while not over:
        wanted = language_env(env).expert_action(action)
        assert wanted in info["actions"]
        action = draw.choice(info["actions"]) if draw.random() < noise else wanted
        _, _, terminated, truncated, info = env.step(action)
        steps, over = steps + 1, terminated or truncated
    return info["success"], steps


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_played_and_played_on_after_other_steps(level):
    assert [played(level, seed)[0] for seed in range(3)] == [True] * 3
    assert [played(level, seed, noise=0.1)[0] for seed in range(2)] == [True] * 2


TWO_ROOMS = {"num_rows": 1, "num_cols": 2, "num_dists": 6, "room_size": 6}
ONE_ROOM = {"num_rows": 1, "num_cols": 1, "num_dists": 8, "locked_room_prob": 0}
CROWDED = {"num_dists": 8, "max_steps": 64}


@pytest.mark.parametrize(
    ("level", "options", "seed"),
    [
        ("BossLevel", TWO_ROOMS, 500039),  # something stands where the goal's thing is to be put
        ("BossLevel", TWO_ROOMS, 600369),
        ("BossLevel", ONE_ROOM, 600210),
        ("MixedLocal", CROWDED, 600343),  # what is put down would cut the goal's thing off
    ],
)
def test_nothing_is_picked_up_and_dropped_for_good(level, options, seed):
    env = lang_agent.make(f"BabyAI-{level}-v0", renderer="rooms", **options)
    (episode,) = play(ExpertAgent(0.3, varied=True), [env], [seed])
    assert episode.steps[-1].info["success"]


def test_nothing_is_remembered_but_what_was_seen():
    env = lang_agent.make("BabyAI-BossLevel-v0").unwrapped
    env.reset(seed=5)
    world = env.env.unwrapped
    memory, seen = Memory(world), {}
    draw = random.Random(1)
    for _ in range(150):
        memory.look(world.gen_obs()["image"], world)
        visible = world.gen_obs_grid()[1]
        for x in range(world.width):
            for y in range(world.height):
                if world.in_view(x, y):
                    column, row = world.relative_coords(x, y)
                    if visible[column, row]:
                        cell = world.grid.get(x, y)
                        seen[y * world.width + x] = cell.encode() if cell else (1, 0, 0)
        for place, found in seen.items():
            if place == memory.at and found[0] == 1:
                continue
            assert memory.known >> place & 1
            assert memory.cells.get(place, (1, 0, 0)) == tuple(found)
        assert memory.known.bit_count() <= len(seen) + 1  # its own cell
        world.step(draw.choice([Actions.left, Actions.right, Actions.forward, Actions.toggle]))


def blank(width: int, height: int) -> Memory:
    return Memory(SimpleNamespace(width=width, height=height))


def as_set(cells: int) -> set[int]:
    return {place for place in range(cells.bit_length()) if cells >> place & 1}


GRIDS = st.integers(0, 2**32 - 1)


@given(GRIDS)
def test_floods_are_those_of_a_queue(seed):
    draw = np.random.default_rng(seed)
    width, height = 7, 6
    free = np.zeros((height, width), bool)  # walls all around, as in every level
    free[1:-1, 1:-1] = draw.random((height - 2, width - 2)) < 0.6
    start = 2 * width + 3
    free.flat[start] = True
    reached, queue = {start}, deque([start])
    while queue:
        place = queue.popleft()
        for step in (1, -1, width, -width):
            if free.flat[place + step] and place + step not in reached:
                reached.add(place + step)
                queue.append(place + step)
    through = sum(1 << int(place) for place in np.flatnonzero(free))
    assert as_set(blank(width, height).flood(1 << start, through)) == reached


@given(GRIDS, st.integers(0, 3))
def test_ways_are_shortest_turns_counted(seed, facing):
    draw = np.random.default_rng(seed)
    width, height = 7, 6
    free = np.zeros((height, width), bool)
    free[1:-1, 1:-1] = draw.random((height - 2, width - 2)) < 0.7
    start, target = 2 * width + 3, int(draw.integers(width * height))
    free.flat[start] = True
    steps = (1, width, -1, -width)
    far, queue = {(start, facing): 0}, deque([(start, facing)])
    while queue:
        place, way = queue.popleft()
        ahead = place + steps[way]
        options = [(place, (way + 1) % 4), (place, (way - 1) % 4)]
        options += [(ahead, way)] if free.flat[ahead] else []
        for one in options:
            if one not in far:
                far[one] = far[place, way] + 1
                queue.append(one)
    ends = [by for (place, way), by in far.items() if place + steps[way] == target]
    planner = Planner.__new__(Planner)
    planner.memory = blank(width, height)
    memory, taken = planner.memory, 0
    memory.at, memory.facing = start, facing
    through = sum(1 << int(place) for place in np.flatnonzero(free))
    while (action := planner._toward(1 << target, through)) not in (None, THERE):
        if action == Actions.forward:
            memory.at += steps[memory.facing]
            assert free.flat[memory.at]
        else:
            memory.facing = (memory.facing + (1 if action == Actions.right else -1)) % 4
        taken += 1
    assert (action, taken) == ((THERE, min(ends)) if ends else (None, 0))


@pytest.mark.parametrize("level", ["BossLevel", "UnblockPickup", "PutNextS7N4"])
def test_what_is_done_next_follows_from_memory_alone(level):
    """The past but for what is remembered makes no difference: it can be learned from a prompt."""
    env, draw = lang_agent.make(f"BabyAI-{level}-v0", renderer="rooms").unwrapped, random.Random(2)
    env.reset(seed=7)
    world = env.env.unwrapped
    planner, last = Planner(env.env), None
    for _ in range(60):
        try:
            action = planner(last)
        except ExpertLostError:
            break
        other = Planner(env.env)
        other.memory = copy.copy(planner.memory)
        other.memory.cells = dict(planner.memory.cells)
        assert other(None) == action
        last = action if draw.random() > 0.2 else draw.choice(list(Actions)[:6])
        if world.step(last)[2]:
            break


def test_who_is_there_already_does_what_changes_nothing(monkeypatch):
    world = lang_agent.make("BabyAI-GoToLocal-v0").unwrapped.env
    world.reset(seed=0)
    planner = Planner(world)
    monkeypatch.setattr(planner, "_next", lambda task: THERE)
    assert planner(None) == Actions.drop


def test_closed_doors_that_hide_something_are_known_those_of_the_room_first():
    memory = Memory(SimpleNamespace(width=9, height=3))
    memory.cells = dict.fromkeys((12, 14, 16), (DOOR, 0, CLOSED))
    memory.closed = 1 << 12 | 1 << 14 | 1 << 16
    room = memory.known = 1 << 13
    assert memory.hiding(room) == [14, 12, 16]
    memory.known |= memory.beside(1 << 14)
    assert memory.hiding(room) == [12, 16]


def test_a_room_is_looked_at_whole_and_then_its_doors_are_opened_the_last_found_first():
    """Whichever is nearer: who turns around on the way to a door has no reason to take another."""
    world = lang_agent.make("BabyAI-GoTo-v0", renderer="rooms").unwrapped.env.unwrapped
    opened = 0
    for seed in range(6):
        world.reset(seed=seed)
        planner, last, over = Planner(world), None, False
        while not over:
            last = planner(last)
            memory = planner.memory
            ahead = memory.at + memory.steps[memory.facing]
            if last == Actions.toggle and memory.closed >> ahead & 1:
                room = memory.flood(1 << memory.at, memory.floor)
                assert not memory.beside(room) & ~memory.known
                places = list(memory.cells)
                later = places[places.index(ahead) + 1 :]
                doors = memory.closed & memory.beside(room)
                unopened = [place for place in later if doors >> place & 1]
                for place in unopened:  # known on both sides, or something stands before it
                    assert not (
                        memory.beside(1 << place) & ~memory.known
                        and planner._toward(1 << place, planner.passable) is not None
                    )
                opened += 1
            over = world.step(last)[2]
    assert opened > 5


def test_the_expert_gives_up_in_just_the_worlds_whose_key_lies_behind_its_own_door():
    script = Path(__file__).parents[1] / "benchmarks" / "solvable.py"
    seeds = range(1_000_100_208, 1_000_100_220)
    unsolvable = runpy.run_path(str(script))["unsolvable"](read_task("BabyAI-Unlock-v0"), seeds)
    assert unsolvable == [1_000_100_214, 1_000_100_217]
    for seed in seeds:
        if seed in unsolvable:
            with pytest.raises(ExpertLostError):
                played("Unlock", seed)
        else:
            assert played("Unlock", seed)[0]
