"""`lang-agent check`: each kind of unfit world is found out, and what ships passes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import gymnasium
import pytest

import lang_agent
from lang_agent import LangAgentError, TextEnv, World
from lang_agent.cli import main as cli
from lang_agent.evaluation.check import check_env


class Line(gymnasium.Env):
    """Five places in a row, of which the last is the goal; what is wrong with it is said."""

    def __init__(self, wrong=""):
        self.wrong = wrong
        self.observation_space = gymnasium.spaces.Discrete(5)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes += 1
        drifts = self.wrong == "remembers" and self.episodes > 1
        self.place = 2 if drifts else int(self.np_random.integers(2))
        self.steps = 0
        return self.place, {}

    def step(self, action):
        self.steps += 1
        self.place = min(max(self.place + (1 if action else -1), 0), 4)
        over = self.place == 4 and self.wrong != "endless"
        reward = float(over and self.wrong != "never paid")
        return self.place, reward, over, self.steps >= 30 and self.wrong != "endless", {}


def render(observation, env):
    text = "somewhere" if env.unwrapped.wrong == "vague" else f"place {observation}"
    return {"mission": "go right", "descriptions": [text]}


class Expert:
    def __init__(self, env, wording):
        self.env = env

    def __call__(self, action):
        return 0 if self.env.unwrapped.wrong == "vague" and self.env.unwrapped.place == 3 else 1


def line(wrong="", phrases=("left", "right"), expert=Expert, **world):
    actions = dict(zip(phrases, range(2), strict=True))
    world = World(actions=actions, renderers={"plain": render}, expert=expert, **world)
    return TextEnv(Line(wrong), world, prompt="minimal")


def verdicts(make, **options):
    return {one.check: one for one in check_env(make, episodes=8, **options)}


def test_a_good_world_passes():
    found = verdicts(line)
    assert {one.verdict for one in found.values()} == {"good"}
    assert found["success"].said.startswith("1.00 by the expert")


@pytest.mark.parametrize(
    ("make", "check", "verdict", "said"),
    [
        (lambda: line("remembers"), "determinism", "bad", "after other episodes"),
        (lambda: line("vague"), "completeness", "bad", "the expert says 'right'"),
        (lambda: line(phrases=("left", "Left.")), "phrases", "bad", "name them apart"),
        (lambda: line("never paid", expert=None), "success", "warning", "never seen"),
        (lambda: line("endless", expert=None), "success", "warning", "step limit"),
    ],
)
def test_an_unfit_world_is_found_out(make, check, verdict, said):
    found = verdicts(make)
    assert found[check].verdict == verdict
    assert said in found[check].said


def test_a_world_that_differs_from_one_environment_to_the_next():
    counter = itertools.count()

    class Counting(Line):
        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place = next(counter) % 3
            return self.place, {}

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Counting(), world))
    assert found["determinism"].verdict == "bad"


def test_a_world_that_refuses_what_it_calls_admissible():
    class Refusing(TextEnv):
        def step(self, action):
            prompt, reward, terminated, truncated, info = super().step(action)
            return prompt, reward, terminated, truncated, {**info, "invalid_action": True}

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: Refusing(Line(), world))
    assert found["admissible phrases"].verdict == "bad"
    assert "was admissible and is refused" in found["admissible phrases"].said


def test_prompts_are_measured_against_a_context():
    found = verdicts(line, count_tokens=len, context=10)
    assert found["prompt lengths"].verdict == "warning"
    assert "would be cut" in found["prompt lengths"].said
    assert verdicts(line, count_tokens=len, context=1000)["prompt lengths"].verdict == "good"


def test_gymnasiums_own_checker_is_heard():
    class Wrong(TextEnv):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=seed)[0]

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: Wrong(Line(), world))
    assert found["Gymnasium's checker"].verdict == "bad"
    assert found["playing"].verdict == "bad"  # there is no going on


def test_chance_is_no_lack_of_words():
    class Slippery(Line):
        def step(self, action):
            return super().step(action if self.np_random.random() < 0.5 else 1 - action)

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Slippery(), world, prompt="minimal"))
    assert found["completeness"].verdict == "good"  # 'right' pays in place 3, or does not


def test_a_world_that_raises_is_a_failed_check():
    class Broken(Line):
        def step(self, action):
            if self.steps == 3:
                raise KeyError("lost")
            return super().step(action)

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Broken(), world))
    assert found["playing"].verdict == "bad"
    assert "lost" in found["playing"].said


SHIPPED = ("BabyAI-GoToLocal-v0", "BabyAI-MixedLocal-v0", "BabyAI-PutNextLocal-v0",
           "MiniGrid-DoorKey-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0",
           "MiniGrid-MemoryS7-v0", "TextGeneration-v0", "Dialogue-v0", "TextFrozenLake-v0",
           "TextTaxi-v0", "TextCliffWalking-v0", "TextBlackjack-v0", "Sokoban-v0",
           "Baba-v0")  # fmt: skip


@pytest.mark.parametrize("env_id", SHIPPED)
def test_what_ships_is_fit(env_id):
    found = {one.check: one for one in check_env(lambda: lang_agent.make(env_id), episodes=1)}
    assert all(one.verdict != "bad" for one in found.values()), found


@pytest.mark.parametrize("renderer", ["absolute", "whole", "remembered", "ascii", "json"])
def test_renderers_that_ship_are_fit(renderer):
    def make():
        return lang_agent.make("BabyAI-GoToLocal-v0", renderer=renderer, prompt="minimal")

    found = {one.check: one for one in check_env(make, episodes=3)}
    assert all(one.verdict != "bad" for one in found.values()), found


def test_the_command_takes_a_world_a_template_or_a_renderer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own.jinja").write_text("{{ mission }} {{ descriptions | join(' ') }}>")
    (tmp_path / "my_renderer.py").write_text(
        "def vague(observation, env):\n    return {'mission': 'm', 'descriptions': ['something']}\n"
    )
    few = ["--episodes", "3"]
    cli.run(["check", "BabyAI-GoToObjS4-v0", *few])
    cli.run(["check", "own.jinja", "--on", "BabyAI-GoToObjS4-v0", *few])
    cli.run(["check", "whole", "--on", "BabyAI-GoToObjS4-v0", *few])
    said = capsys.readouterr().out
    assert "BabyAI-GoToObjS4-v0, prompt own.jinja" in said
    assert "BabyAI-GoToObjS4-v0, renderer whole" in said
    assert "warn" not in said.split("renderer whole")[0].split("determinism")[0]
    with pytest.raises(LangAgentError, match="failed in: completeness"):
        cli.run(["check", "my_renderer:vague", "--prompt", "minimal", *few])
    with pytest.raises(LangAgentError, match="Unknown environment"):
        cli.run(["check", "BabyAI-GoToLocul-v0"])


def test_a_new_world_can_be_played_checked_and_tested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cli.run(["new-world", "my_tower"])
    cli.run(["play", "my_tower:MyTower-v0", "--agent", "expert", "--plain"])
    assert "The goal was reached" in capsys.readouterr().out
    cli.run(["check", "my_tower:MyTower-v0", "--episodes", "5"])
    said = capsys.readouterr().out
    assert "FAIL" not in said
    assert "warn" not in said
    tests = [sys.executable, "-m", "pytest", "-q", "test_my_tower.py"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(tests, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(LangAgentError, match="is there already"):
        cli.run(["new-world", "my_tower"])
    for name in ("my-tower", "class", "../x", "Tower"):
        with pytest.raises(LangAgentError, match="cannot name a Python file"):
            cli.run(["new-world", name])


def test_one_of_gymnasiums_environments_is_made_to_speak(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LangAgentError, match="lang-agent new-world my_world --wraps CartPole-v1"):
        cli.run(["play", "CartPole-v1", "--agent", "random", "--plain"])
    cli.run(["new-world", "my_pole", "--wraps", "CartPole-v1"])
    cli.run(["play", "my_pole:MyPole-v0", "--agent", "constant:action 1", "--plain"])
    assert "The state is" in capsys.readouterr().out
    code = [line for line in (tmp_path / "my_pole.py").read_text().splitlines() if line.strip()]
    assert len(code) < 20
    with pytest.raises(LangAgentError, match="takes actions of Box"):
        cli.run(["new-world", "my_hill", "--wraps", "MountainCarContinuous-v0"])
    with pytest.raises(LangAgentError, match="Gymnasium cannot make 'Nothing-v0'"):
        cli.run(["new-world", "my_nothing", "--wraps", "Nothing-v0"])
