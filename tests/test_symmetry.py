"""Symmetries: what is told through one is what the world seen so would have said."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from lang_agent.envs.minigrid import text_env
from lang_agent.envs.minigrid_symmetry import MIRRORED
from lang_agent.envs.mixed_local import PAIRS
from minigrid.core.constants import COLOR_NAMES
from minigrid.core.grid import Grid
from minigrid.wrappers import ImgObsWrapper
from test_hindsight import COLOURS, DOORS, Doors

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.errors import LangAgentError
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.hindsight import relabel
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.registry import make
from lang_agent.text_env.world import Symmetry
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import Trainer

MIXED = "BabyAI-MixedLocal-v0"


def watched(**options: Any) -> TextEnv:
    env = make(MIXED, **{"num_dists": 8, "prompt": "goal_last", **options}).unwrapped
    env.watch(symmetries=True)
    return env


def turn_around(world: Any, symmetry: Symmetry, mission: str) -> None:
    """Make the world what it is in the mirror and in other colours, by its own grid."""
    mirrored = symmetry.action(0) != 0
    before, width = world.grid, world.width
    world.grid, world.mission = Grid(width, world.height), symmetry.mission(mission)
    for x in range(width):
        for y in range(world.height):
            cell = before.get(x, y)
            if cell is not None:
                if cell.type != "wall":
                    cell.color = symmetry.mission(cell.color)
                world.grid.set(width - 1 - x if mirrored else x, y, cell)
    if mirrored:
        world.agent_pos = np.array([width - 1 - world.agent_pos[0], world.agent_pos[1]])
        world.agent_dir = {0: 2, 2: 0}.get(world.agent_dir, world.agent_dir)


@pytest.mark.parametrize("task", ["goto", "putnext", "open"])
def test_what_is_told_reads_as_the_world_seen_so_does(task):
    options = {"task": task, "max_steps": 30}
    env, other = watched(**options), watched(**options)
    mirrored = set()
    for seed in range(8):
        draw = random.Random(seed)
        _, info = env.reset(seed=seed)
        done = False
        while not done:
            _, _, *ends, info = env.step(draw.choice(info["actions"]))
            done = any(ends)
        mission = env.env.unwrapped.mission
        told = list(env.relabelled(mission, np.random.default_rng(seed)))
        symmetry = env.world.symmetries(mission, np.random.default_rng(seed))
        mirrored.add(symmetry.action(0))
        other.reset(seed=seed)
        turn_around(other.env.unwrapped, symmetry, mission)
        for (_, action), (wanted, _) in pairwise(told):
            assert other.step(action)[0] == wanted
    assert mirrored == {0, 1}


def test_a_mirrored_action_is_in_the_transcript_too():
    env = watched(task="goto", prompt="transcript")
    env.reset(seed=0)
    said = ["turn left", "turn left", "go forward", "turn right"]
    for action in said:
        env.step(action)
    mission = env.env.unwrapped.mission
    mirror = {"turn left": "turn right", "turn right": "turn left"}
    found = set()
    for seed in range(8):
        told = list(env.relabelled(mission, np.random.default_rng(seed)))
        actions = tuple(action for _, action in told)
        assert all(f"Action: {a}\n" in told[-1][0] for a in actions[:-1])
        found.add(actions)
    assert found == {tuple(said), tuple(mirror.get(action, action) for action in said)}


def test_what_wrappers_leave_of_the_view_is_seen_so_too():
    level = ImgObsWrapper(gymnasium.make("BabyAI-GoToLocal-v0"))
    env = text_env(level, {"prompt": "goal_last"})
    env.watch(symmetries=True)
    env.reset(seed=0)
    env.step("turn left")
    told = {
        next(env.relabelled("go to a red box", np.random.default_rng(seed))) for seed in range(9)
    }
    assert {action for _, action in told} == {"turn left", "turn right"}
    assert len(told) == 9


def test_colours_change_places_and_the_mission_with_what_is_seen():
    env = watched(task="pickup")
    draw, missions = env.world.symmetries, set()
    generator = np.random.default_rng(0)
    for _ in range(200):
        symmetry = draw("pick up the blue key", generator)
        colors = [symmetry.mission(color) for color in COLOR_NAMES]
        assert sorted(colors) == sorted(COLOR_NAMES)
        missions.add(symmetry.mission("pick up the blue key"))
        assert {symmetry.action(action) for action in MIRRORED} == set(MIRRORED)
    held_out = {f"{color} {kind}" for color, kind in PAIRS}
    assert missions == {
        f"pick up the {color} key" for color in COLOR_NAMES if f"{color} key" not in held_out
    }


def test_the_decision_told_is_the_one_seen_so(policy):
    env = watched(task="pickup")
    stories = []

    def on_end(episode, _):
        generator = torch.Generator().manual_seed(episode.seed)
        stories.extend(relabel(episode, env, policy, 0.9, LearnConfig(), generator))

    episodes = list(play(PolicyAgent(policy, 1), [env], range(12), on_end=on_end))
    seen = {step.observation.prompt.split("\n")[0] for e in episodes for step in e.steps}
    told = [step for story in stories for step in story.steps]
    for step in told:
        assert step.observation.actions[step.decision.choice] == step.decision.action
    other = [step.observation.prompt.split("\n")[0] not in seen for step in told]
    assert sum(other) > 0.8 * len(other) > 0


@pytest.mark.parametrize(
    ("renderer", "name"),
    [
        ("rooms", ":Rooms"),
        ("remembered", ":RememberedMap"),
        (lambda seen, env: {"descriptions": []}, "<lambda>"),
    ],
)
def test_a_renderer_that_reads_the_world_is_refused(renderer, name):
    env = make(MIXED, renderer=renderer).unwrapped
    with pytest.raises(LangAgentError, match=f"{name} needs more of BabyAI-MixedLocal-v0 than"):
        env.watch(symmetries=True)


def test_a_world_without_symmetries_is_refused():
    with pytest.raises(LangAgentError, match="has no symmetries: set symmetries to False"):
        TextEnv(Doors(), DOORS).watch(symmetries=True)
    with pytest.raises(LangAgentError, match="symmetries=True has no use without hindsight"):
        TrainConfig(symmetries=True)


def test_an_action_that_has_no_counterpart_is_named():
    env = watched(task="goto", actions=["turn left", "go forward"])
    env.reset(seed=0)
    env.step("turn left")
    env.step("go forward")
    generator = np.random.default_rng(0)
    with pytest.raises(LangAgentError, match="No phrase says what 'turn left' is in a symmetry"):
        [list(env.relabelled("go to a box", generator)) for _ in range(20)]


class FromObservation:
    """A renderer that reads the observation alone, and says so."""

    observation_alone = True

    def __call__(self, asked: int, env: Any) -> dict[str, Any]:
        return DOORS.renderers["words"](asked, env)


def any_other_door(mission: str, generator: np.random.Generator) -> Symmetry:
    order = generator.permutation(len(COLOURS))
    names = {f"take {was}": f"take {COLOURS[to]}" for was, to in zip(COLOURS, order, strict=True)}
    return Symmetry(lambda asked: int(order[asked]), names.__getitem__, lambda at: int(order[at]))


def test_a_world_of_ones_own_is_told_through_its_symmetries(policy):
    renderers = {"words": FromObservation}
    world = replace(DOORS, renderers=renderers, symmetries=any_other_door)
    env = TextEnv(Doors(), world, prompt="minimal")
    env.watch(symmetries=True)
    env.reset(seed=0)
    env.step("take red")
    generator = np.random.default_rng(0)
    told = [step for _ in range(60) for step in env.relabelled("take red", generator)]
    assert {action for _, action in told} == {f"take {colour}" for colour in COLOURS}
    assert all(f"{action}\n" in f"{prompt}\n" for prompt, action in told)


def test_a_run_tells_through_symmetries(tmp_path):
    text = TextConfig(prompt="goal_last")
    config = TrainConfig(env=MIXED, text=text, model="pico", steps=128, rollout_steps=64, envs=4)
    config = replace(config, hindsight=0.8, eval_episodes=0)
    measured: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for symmetries, rows in measured.items():
        folder = tmp_path / str(symmetries)
        folder.mkdir()
        Trainer(replace(config, symmetries=symmetries), folder).run(rows.append)
    off, on = measured[False][0], measured[True][0]
    assert on["success"] == off["success"]
    assert on["hindsight_decisions"] == off["hindsight_decisions"] > 0
    assert on["hindsight_loss"] != off["hindsight_loss"]
