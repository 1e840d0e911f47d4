"""Text environments: what an invalid action does, what is refused, what info tells."""

from __future__ import annotations

import pytest
from conftest import BANDIT, Bandit, make_bandit

import lang_agent
from lang_agent import LangAgentError, TextEnv, World
from lang_agent.text_env import MAX_IDLE


def test_info_and_spaces():
    env = make_bandit()
    prompt, info = env.reset(seed=0)
    assert prompt in env.observation_space
    assert info["actions"] == ("go left", "go right")
    assert (info["verdict"], info["success"], info["invalid_action"]) == (None, False, False)
    right = "go left" if "left" in info["descriptions"][0] else "go right"
    _, reward, terminated, _, info = env.step(right.upper() + "!")
    assert (reward, terminated, info["verdict"], info["success"]) == (1.0, True, "normalised", True)


def goto(**options):
    env = lang_agent.make("BabyAI-GoToLocal-v0", **options)
    return env, env.reset(seed=0)[1]


def test_noop_lets_time_pass_and_counts():
    env, before = goto()
    prompt, reward, _, _, info = env.step("dance")
    assert info["invalid_action"]
    assert info["verdict"] == "invalid"
    assert "'dance' is none of" in info["reason"]
    assert info["reason"] in prompt
    assert (reward, info["descriptions"]) == (0.0, before["descriptions"])
    assert env.unwrapped.env.unwrapped.step_count == 1


def test_default_takes_its_phrase():
    env, before = goto(invalid_action="default:turn left")
    *_, info = env.step("dance")
    other, _ = goto()
    *_, expected = other.step("turn left")
    assert info["descriptions"] == expected["descriptions"] != before["descriptions"]
    assert info["invalid_action"]


def test_penalty_is_taken_off_the_reward():
    env, _ = goto(invalid_action="penalty:0.25")
    assert env.step("dance")[1] == -0.25
    assert env.step("turn left")[1] == 0.0


def test_retry_asks_again_before_time_passes():
    env, _ = goto(invalid_action="retry:2")
    world = env.unwrapped.env.unwrapped
    counts = []
    for _ in range(4):
        env.step("dance")
        counts.append(world.step_count)
    assert counts == [0, 0, 1, 1]


def test_end_terminates_without_reward():
    env, _ = goto(invalid_action="end")
    _, reward, terminated, truncated, info = env.step("dance")
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)


def test_a_world_without_noop_stays_put_but_not_for_ever():
    env = make_bandit()
    env.reset(seed=0)
    flags = [env.step("dance")[2:4] for _ in range(MAX_IDLE)]
    assert flags[:-1] == [(False, False)] * (MAX_IDLE - 1)
    assert flags[-1] == (False, True)


@pytest.mark.parametrize(
    "rule", ["nope", "penalty:", "penalty:-1", "penalty:x", "retry:1.5", "default:", "noop:1"]
)
def test_a_malformed_invalid_action_rule_is_refused(rule):
    with pytest.raises(LangAgentError, match="invalid_action"):
        make_bandit(invalid_action=rule)


def test_actions_can_be_narrowed_and_renamed():
    env = make_bandit(actions=["go left"])
    assert env.reset(seed=0)[1]["actions"] == ("go left",)
    env = make_bandit(actions={"veer left": "go left", "veer right": "go right"})
    _, info = env.reset(seed=0)
    assert info["actions"] == ("veer left", "veer right")
    assert env.step("veer left")[4]["verdict"] == "exact"
    for wrong in ([], ["fly"], "go left", {"x": "fly"}):
        with pytest.raises(LangAgentError):
            make_bandit(actions=wrong)


def test_actions_may_differ_from_state_to_state():
    def render(state, env):
        return {"descriptions": [], "actions": (("go left",), ("go right",))[state]}

    env = TextEnv(Bandit(), World(BANDIT.actions, {"r": render}))
    shown = {env.reset(seed=seed)[1]["actions"] for seed in range(8)}
    assert shown == {("go left",), ("go right",)}
    wrong = World(BANDIT.actions, {"r": lambda *_: {"descriptions": [], "actions": ("fly",)}})
    with pytest.raises(LangAgentError, match="'fly'"):
        TextEnv(Bandit(), wrong).reset(seed=0)


def test_a_renderer_must_describe():
    env = TextEnv(Bandit(), World(BANDIT.actions, {"r": lambda state, env: {"mission": "x"}}))
    with pytest.raises(LangAgentError, match="returned no 'descriptions'"):
        env.reset(seed=0)


def test_a_foreign_environment_needs_a_world_or_a_renderer_with_actions():
    with pytest.raises(LangAgentError, match="does not speak text"):
        lang_agent.make("FrozenLake-v1")
    env = lang_agent.make(
        "FrozenLake-v1",
        renderer=lambda cell, env: {"descriptions": [f"You stand on cell {cell}"]},
        actions={"west": 0, "south": 1, "east": 2, "north": 3},
        is_slippery=False,
    )
    prompt, _ = env.reset(seed=0)
    assert "You stand on cell 0" in prompt
    assert "You stand on cell 4" in env.step("south")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_id": "BabyAI-GoToLocl-v0"}, "Did you mean 'BabyAI-GoToLocal-v0'"),
        ({"env_id": "nowhere:Thing-v0"}, "nowhere"),
        ({"renderer": "oil"}, "renderer 'oil'"),
        ({"renderer": "json:missing"}, "Cannot load 'json:missing'"),
        ({"prompt": "transcrpt"}, "Did you mean 'transcript'"),
        ({"prompt_folder": "/no/such/folder"}, "does not exist"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_mistakes_are_one_clear_sentence(options, message):
    with pytest.raises(LangAgentError, match=message):
        lang_agent.make(**{"env_id": "BabyAI-GoToLocal-v0", **options})
