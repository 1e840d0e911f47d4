"""The minigrid worlds against recorded data and against minigrid itself."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lang_agent.envs.minigrid import ascii_map, describe, minigrid_ids, structured
from lang_agent.envs.minigrid_view import encode_view
from lang_agent.envs.mixed_local import HELD_OUT, TASKS
from minigrid.minigrid_env import MiniGridEnv

import lang_agent
from lang_agent import LangAgentError
from lang_agent.worlds import text_env_ids


def image(record) -> np.ndarray:
    return np.array(record["image"], dtype=np.uint8)


@pytest.mark.parametrize(("language", "field"), [("en", "descriptions"), ("fr", "descriptions_fr")])
def test_descriptions_equal_the_recorded_ones(oracle, language, field):
    wrong = [record for record in oracle if describe(image(record), language) != record[field]]
    assert len(oracle) == 450
    assert wrong == []


def test_an_unknown_language_is_refused(oracle):
    with pytest.raises(LangAgentError, match="'de'"):
        describe(image(oracle[0]), "de")


def test_mixed_local_equals_the_recorded_traces(traces):
    assert len(traces) == 40
    for key, (mission, max_steps, first, *steps) in traces.items():
        task, seed = key.rsplit("/", 1)
        env = lang_agent.make("BabyAI-MixedLocal-v0", task=task, num_dists=0).unwrapped
        _, info = env.reset(seed=int(seed))
        assert (info["mission"], info["descriptions"]) == (mission, first), key
        assert env.env.unwrapped.max_steps == max_steps, key
        draw = random.Random(int(seed))
        for expected in steps:
            _, reward, terminated, truncated, info = env.step(env.phrases[draw.randrange(6)])
            seen = [info["descriptions"], round(reward, 4), terminated, truncated]
            assert seen == expected, key


@pytest.mark.parametrize("split", ["train", "test"])
def test_held_out_pairs_are_in_the_test_split_alone(split):
    pairs = [" ".join(pair) for pair in HELD_OUT]
    env = lang_agent.make("BabyAI-MixedLocal-v0", split=split, num_dists=2)
    tasks = set()
    for seed in range(60):
        _, info = env.reset(seed=seed)
        tasks.add(info["task"])
        named = sum(pair in info["mission"] for pair in pairs)
        objects = 1 if info["task"] in ("goto", "pickup", "open") else 2
        assert named == (0 if split == "train" else objects), info["mission"]
    assert tasks == set(TASKS)


def test_the_new_composition_is_for_testing_alone():
    with pytest.raises(LangAgentError, match="pick_up_seq_pick_up"):
        lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_pick_up")
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="pick_up_seq_pick_up", split="test")
    _, info = env.reset(seed=0)
    assert info["mission"].count("pick up") == 2


def test_sequences_are_of_two_tasks_but_never_of_two_pickups():
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="sequence", num_dists=0)
    missions = [env.reset(seed=seed)[1]["mission"] for seed in range(60)]
    assert len(set(missions)) == 60
    for mission in missions:
        assert mission.count("pick up") < 2
        assert sum(mission.count(what) for what in ("go to", "pick up", "put")) == 2
        assert (", then " in mission) != (" after you " in mission)
    with pytest.raises(LangAgentError, match="Unknown MixedLocal task"):
        lang_agent.make("BabyAI-MixedLocal-v0", task="sequence", split="test")


@pytest.mark.parametrize("env_id", [*minigrid_ids(), "BabyAI-MixedLocal-v0"])
def test_every_minigrid_id_plays_in_words_and_sees_what_minigrid_sees(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = lang_agent.make(env_id)
    world = env.unwrapped.env.unwrapped
    draw = random.Random(0)
    prompt, info = env.reset(seed=0)
    for _ in range(12):
        assert prompt.endswith("Action: ")
        assert np.array_equal(encode_view(world), MiniGridEnv.gen_obs(world)["image"])
        prompt, _, terminated, truncated, info = env.step(draw.choice(info["actions"]))
        assert info["verdict"] == "exact"
        if terminated or truncated:
            prompt, info = env.reset()


def test_all_of_the_minigrid_package_is_there():
    ids = text_env_ids()
    assert "BabyAI-MixedLocal-v0" in ids
    assert len([name for name in ids if name.startswith(("BabyAI", "MiniGrid"))]) > 150


@pytest.mark.parametrize("env_id", ["BabyAI-GoToLocal-v0", "BabyAI-MixedLocal-v0"])
def test_gymnasiums_checker_passes(env_id):
    env = gymnasium.make(f"lang_agent/{env_id}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render_modes.*|.*render mode.*|.*spec.*")
        check_env(env.unwrapped, skip_render_check=True)


PLAY = """
import random, lang_agent
env = lang_agent.make("BabyAI-MixedLocal-v0", num_dists=8)
draw, told = random.Random(1), []
for seed in range(6):
    text, info = env.reset(seed=seed)
    for _ in range(20):
        text, reward, terminated, truncated, info = env.step(draw.choice(info["actions"]))
        told.append((text[-80:], reward))
        if terminated or truncated: break
import hashlib; print(hashlib.sha256(repr(told).encode()).hexdigest())
"""


def test_a_seed_gives_the_same_episode_in_every_process_and_prints_nothing_else():
    outputs = [
        subprocess.run([sys.executable, "-c", PLAY], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert outputs[0].stdout == outputs[1].stdout
    assert len(outputs[0].stdout.split()) == 1


def test_the_gymnasium_module_spelling_needs_no_import():
    code = "import gymnasium; print(gymnasium.make('lang_agent:lang_agent/BabyAI-GoToLocal-v0'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TextEnv" in run.stdout


def test_ascii_and_structured_views_agree_with_the_words(oracle):
    record = next(
        r for r in oracle if r["carrying"] and any("door" in d for d in r["descriptions"])
    )
    data = structured(image(record))
    assert data["carrying"] == record["carrying"]
    told = [text for text in record["descriptions"] if "wall" not in text and "carry" not in text]
    assert len(data["objects"]) == len(told)
    for thing, text in zip(data["objects"], told, strict=True):
        assert f"{thing['color']} {thing['type']}" in text
        assert thing.get("state", "") in text
    rows = ascii_map(image(record))
    assert rows[6].split(" ")[3] == "^^"
    assert rows[-1].startswith("carrying ")
    drawn = sum(cell[0] in "kobg~/+L" for row in rows[:7] for cell in row.split(" ") if cell)
    assert drawn == len(told)


@pytest.mark.parametrize("renderer", ["babyai", "babyai_fr", "ascii", "json"])
def test_renderers_by_name(renderer):
    env = lang_agent.make("BabyAI-GoToLocal-v0", renderer=renderer)
    prompt, info = env.reset(seed=3)
    assert all(line in prompt for line in info["descriptions"])
    if renderer == "json":
        assert json.loads(info["descriptions"][0])["objects"]


def test_the_bot_solves_mixed_local_in_words():
    from lang_agent.agents import BotAgent
    from lang_agent.rollout import play

    envs = [lang_agent.make("BabyAI-MixedLocal-v0", num_dists=4) for _ in range(2)]
    episodes = list(play(BotAgent(), envs, range(20)))
    assert sum(episode.success for episode in episodes) == 20
