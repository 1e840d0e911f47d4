"""Crafter in words: the recorded episodes, seeds, and what is missing without the package."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from conftest import DATA

import lang_agent
from lang_agent import LangAgentError

with gzip.open(DATA / "crafter_traces.json.gz", "rt", encoding="utf-8") as file:
    RECORDED = json.load(file)["episodes"]


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(LangAgentError, match=r"pip install 'lang_agent\[crafter\]'"):
        lang_agent.make("Crafter-v0")


@pytest.fixture(scope="module")
def env():
    pytest.importorskip("crafter")
    return lang_agent.make("Crafter-v0")


@pytest.mark.parametrize("episode", RECORDED, ids=lambda episode: f"seed{episode['seed']}")
def test_a_seed_gives_the_recorded_episode(env, episode):
    _, info = env.reset(seed=episode["seed"])
    (name, seen, status, _, _), *steps = episode["steps"]
    assert name == "reset"
    assert "\n".join(info["descriptions"]) == seen
    assert info["status"] == status
    for number, (action, seen, status, reward, done) in enumerate(steps, 1):
        _, gained, terminated, truncated, info = env.step(action)
        assert "\n".join(info["descriptions"]) == seen, number
        assert info["status"] == status, number
        assert gained == pytest.approx(reward, abs=1e-9), number
        assert (terminated, truncated) == (done, False), number
    assert info["achievements"] == set(episode["achievements"])
    assert info["progression"] == len(episode["achievements"]) / 22
    assert not info["success"]


def play(env, seed, steps=60):
    prompt, info = env.reset(seed=seed)
    told = [prompt]
    for at in range(steps):
        *end, info = env.step(info["actions"][(at * 7 + seed) % 6])
        told.append((end, info["status"]))
    return told


def test_a_seed_gives_an_episode_also_after_others(env):
    first = [play(env, seed) for seed in (3, 8)]
    assert play(env, 8) == first[1]
    assert play(env, 3) == first[0]
    assert first[0] != first[1]


ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
import lang_agent
from test_crafter import play
kept = [bytearray(48) for _ in range(9999)]  # so that creatures lie elsewhere in memory
print(repr(play(lang_agent.make("Crafter-v0"), 11, 80)))
"""


def test_a_seed_gives_an_episode_wherever_things_lie_in_memory(env):
    code = ELSEWHERE.format(tests=str(DATA.parent))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == repr(play(env, 11, 80))


def test_looking_at_pictures_changes_nothing(env):
    drawn = lang_agent.make("Crafter-v0", render_mode="rgb_array")
    for one in (env, drawn):
        one.reset(seed=5)
    for _ in range(170):  # into the night, which is drawn with noise
        plain, seen = (one.step("Noop")[4] for one in (env, drawn))
        assert drawn.render().shape == (450, 450, 3)
        assert (seen["descriptions"], seen["status"]) == (plain["descriptions"], plain["status"])


def test_the_status_can_stand_in_the_prompt():
    pytest.importorskip("crafter")
    env = lang_agent.make("Crafter-v0", renderer="with_status", max_steps=2)
    prompt, info = env.reset(seed=0)
    assert prompt.count(info["status"]) == 1
    assert "- cow 5 steps to your north-east" in prompt
    assert env.step("fly")[2:4] == (False, False)  # what is no action is Noop
    assert env.step("Move East")[2:4] == (False, True)


@pytest.mark.parametrize("steps", [0, "many", True])
def test_a_mistaken_limit_is_one_sentence(steps):
    pytest.importorskip("crafter")
    with pytest.raises(LangAgentError, match=r"max_steps=.* must be a whole number"):
        lang_agent.make("Crafter-v0", max_steps=steps)
