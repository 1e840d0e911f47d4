"""Text environments: what an invalid action does, what is refused, what info tells."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import traceback
import warnings
from dataclasses import replace

import gymnasium
import pytest
from conftest import BANDIT, Bandit, make_bandit
from gymnasium.utils.env_checker import check_env

import lang_agent
from lang_agent import LangAgentError, TextEnv, World
from lang_agent.text_env.env import MAX_IDLE
from lang_agent.text_env.mixture import Mixture


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
    "rule",
    [
        "nope",
        "penalty:",
        "penalty:-1",
        "penalty:nan",
        "penalty:inf",
        "penalty:x",
        "retry:1.5",
        "default:",
        "noop:1",
    ],
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


def test_descriptions_are_lines():
    env = TextEnv(Bandit(), World(BANDIT.actions, {"r": lambda *_: {"descriptions": "one text"}}))
    with pytest.raises(LangAgentError, match="'descriptions' as one text"):
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
        ({"renderer": "json:missing"}, "'json' 'missing'"),
        ({"prompt": "transcrpt"}, "Did you mean 'transcript'"),
        ({"prompt_folder": "/no/such/folder"}, "does not exist"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_mistakes_are_one_clear_sentence(options, message):
    with pytest.raises(LangAgentError, match=message):
        lang_agent.make(**{"env_id": "BabyAI-GoToLocal-v0", **options})


# -- the expert is told what was done ----------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "said", "told"),
    [
        ("default:go forward", "gibberish", [2]),
        ("noop", "gibberish", [6]),
        ("penalty:0.1", "gibberish", [6]),
        ("retry:1", "gibberish", []),
        ("noop", "I turn left", [0]),
        ("noop", "trun right", [1]),
    ],
)
def test_the_expert_is_told_what_was_really_done(rule, said, told):
    env = lang_agent.make("BabyAI-GoToLocal-v0", invalid_action=rule).unwrapped
    heard = []

    def expert(world, wording):
        return lambda action: (heard.append(action), 0)[1]

    env.world = replace(env.world, expert=expert)
    env.reset(seed=0)
    env.expert_action(None)
    env.step(said)
    assert env.expert_action(said) == "turn left"
    assert heard == [None, *told]


@pytest.mark.parametrize("rule", ["default:turn left", "noop", "retry:2"])
def test_the_bot_recovers_from_what_was_really_done(rule):
    env = lang_agent.make("BabyAI-MixedLocal-v0", num_dists=2, invalid_action=rule)
    draw, wins = random.Random(0), 0
    for seed in range(20):
        env.reset(seed=seed)
        said, over = None, False
        while not over:
            wanted = env.unwrapped.expert_action(said)
            said = "gibberish" if draw.random() < 0.2 else wanted
            _, _, terminated, truncated, info = env.step(said)
            over = terminated or truncated
        wins += info["success"]
    assert wins == 20


# -- spaces ------------------------------------------------------------------------------------

TEXTS = (
    "向左转，然后向前走。",
    "Поверни налево",
    "👍🏽 left",
    "it’s “here”",
    "سر إلى اليسار",
    "à gauche",
    "ไปซ้าย",
)


def speaking(text):
    render = {"r": lambda *_: {"mission": text, "descriptions": [text]}}
    return TextEnv(Bandit(), World({text: 0, f"{text}!": 1}, render))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("mixed", [False, True])
def test_gymnasiums_checker_passes_for_any_script(text, mixed):
    env = speaking(text)
    if mixed:
        env = Mixture([make_bandit(), env], ["one", "two"], [1.0, 1.0])
    prompts = [env.reset(seed=seed)[0] for seed in range(6)]
    assert any(text in prompt for prompt in prompts)
    assert all(prompt in env.observation_space for prompt in prompts)
    assert text in env.action_space
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render.*|.*spec.*")
        check_env(env, skip_render_check=True)


def test_any_text_is_a_member_and_samples_are_texts():
    space = make_bandit().action_space
    assert "x" * 2_000_000 in space
    assert "" in space
    assert None not in space
    assert 3 not in space
    assert b"x" not in space
    space.seed(0)
    samples = [space.sample() for _ in range(20)]
    assert all(isinstance(sample, str) and len(sample) <= 1024 for sample in samples)
    assert len(set(samples)) > 10
    assert space == make_bandit().action_space
    again = pickle.loads(pickle.dumps(space))
    space.seed(1)
    again.seed(1)
    assert again.sample() == space.sample()


@pytest.mark.parametrize("action", [None, 3, b"go left", ["go left"]])
def test_an_action_that_is_no_text_is_one_sentence(action):
    env = make_bandit()
    env.reset(seed=0)
    with pytest.raises(LangAgentError, match="is no text but"):
        env.step(action)
    writing = lang_agent.make("TextGeneration-v0").unwrapped
    writing.reset(seed=0)
    with pytest.raises(LangAgentError, match="is no text but"):
        writing.step(action)


def test_a_step_before_the_first_reset_is_one_sentence():
    with pytest.raises(LangAgentError, match="call reset"):
        make_bandit().step("go left")


# -- arguments, and bugs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent_view_size": 6}, "with agent_view_size=6: it does not take this value"),
        ({"agent_view_size": "wide"}, "agent_view_size='wide' must be a number"),
        ({"max_steps": "abc"}, "max_steps='abc' must be a number"),
        ({"max_steps": 2.5}, "max_steps=2.5 must be a number"),
        ({"max_steps": 0}, "max_steps=0 must be 1 or more"),
        ({"room_size": None}, "room_size=None must be a number"),
        ({"num_dists": "many"}, "num_dists='many' must be a number"),
        ({"num_dists": True}, "num_dists=True must be a number"),
        ({"colour": "red"}, "takes no argument 'colour'"),
        ({"colour": "red", "prompt": "minimal"}, "takes no argument 'colour'"),
    ],
)
@pytest.mark.parametrize("env_id", ["BabyAI-GoToLocal-v0", "BabyAI-MixedLocal-v0"])
def test_a_mistaken_argument_is_one_sentence(env_id, options, message):
    if env_id == "BabyAI-MixedLocal-v0" and "room_size" in options:
        pytest.skip("has one room size")
    with pytest.raises(LangAgentError) as caught:
        lang_agent.make(env_id, **options).reset(seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_mixture_is_no_id_and_the_sentence_says_how_it_is_made():
    with pytest.raises(LangAgentError, match=r"make\('BabyAI-MixedLocal-v0', task=\.\.\.\)"):
        lang_agent.make("BabyAI-MixedLocal-v0 task=open", prompt="minimal")


def broken(**kwargs):
    return len(5)


def broken_helper(**kwargs):
    return helper(shade="red")


def helper(color):
    return color


@pytest.mark.parametrize("options", [{}, {"size": 3}, {"prompt": "minimal"}])
@pytest.mark.parametrize("bug", [broken, broken_helper])
def test_a_bug_inside_a_world_keeps_its_traceback(bug, options):
    gymnasium.register("Broken-v0", entry_point=bug)
    try:
        with pytest.raises(TypeError) as caught:
            lang_agent.make("Broken-v0", **options)
    finally:
        gymnasium.registry.pop("Broken-v0")
    told = "".join(traceback.format_exception(caught.value))
    assert f"in {bug.__name__}\n" in told


def test_a_module_that_is_not_there_or_that_fails_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_broken_world.py").write_text("import no_such_thing_at_all")
    with pytest.raises(LangAgentError, match="'no_such_world'"):
        lang_agent.make("no_such_world:World-v0")
    with pytest.raises(LangAgentError, match="no_such_thing_at_all") as failed:
        lang_agent.make("my_broken_world:World-v0")
    assert isinstance(failed.value.__cause__, ModuleNotFoundError)  # with its author's traceback


def test_one_broken_world_file_leaves_the_others(tmp_path):
    """In a process of its own, with a file in the worlds' folder that cannot be imported and one
    that cannot be registered."""
    (tmp_path / "aaa_broken.py").write_text("raise RuntimeError('no good')")
    (tmp_path / "aab_broken.py").write_text("def register(): raise KeyError('worse')")
    code = f"""
import pkgutil, warnings
import importlib.machinery
real = pkgutil.iter_modules
def iter_modules(path=None, prefix=''):
    import lang_agent
    if path and str(list(path)[0]).endswith('envs'):
        import sys
        sys.modules['lang_agent.envs'].__path__.append({str(tmp_path)!r})
        return [*real([{str(tmp_path)!r}]), *real(path)]
    return real(path, prefix)
pkgutil.iter_modules = iter_modules
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter('always')
    import lang_agent.envs
    print([str(w.message) for w in told if 'world file' in str(w.message)])
lang_agent.make('BabyAI-GoToLocal-v0').reset(seed=0)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "'aaa_broken' cannot be used: RuntimeError: no good" in run.stdout
    assert "aab_broken' cannot be used: KeyError: 'worse'" in run.stdout
