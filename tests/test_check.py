"""`lang-agent check`: each kind of unfit world is found out, and what ships passes."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import gymnasium
import numpy as np
import pytest

import lang_agent
from lang_agent import LangAgentError, OwnRandomness, TextEnv, World
from lang_agent.cli import main as cli
from lang_agent.evaluation.check import check_env
from lang_agent.text_env.registry import text_env_ids
from lang_agent.train.vocabulary import sample_texts


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


class Global(Line):
    """Steps by chance, which does not come from the environment's own generator."""

    def step(self, action):
        return super().step(int(np.random.random() + random.random() < 1))


def test_global_generators_are_told_and_can_be_made_the_environments_own():
    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Global(), world))
    assert found["determinism"].verdict == "bad"
    assert "lang_agent.OwnRandomness" in found["determinism"].said
    outside = random.getstate(), np.random.get_state()[1].tolist()
    found = verdicts(lambda: TextEnv(OwnRandomness(Global()), world))
    assert found["determinism"].verdict == "good"
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outside


def test_environments_with_randomness_of_their_own_do_not_disturb_each_other():
    def episode(env, beside=None):
        places = [env.reset(seed=5)[0]]
        for _ in range(20):
            if beside is not None:
                beside.step(1)
            places.append(env.step(1)[0])
        return places

    one, other = OwnRandomness(Global("endless")), OwnRandomness(Global("endless"))
    other.reset(seed=6)
    alone = episode(one)
    assert episode(one, beside=other) == alone
    assert len(set(alone)) > 1
    one.reset(seed=6)
    assert [one.step(1)[0] for _ in range(20)] != alone[1:]


def test_a_copy_that_is_made_anew_is_no_failure():
    class Anew(Line, gymnasium.utils.EzPickle):
        def __init__(self):
            gymnasium.utils.EzPickle.__init__(self)
            super().__init__()

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Anew(), world))
    assert found["determinism"].verdict == "warning"
    assert "a copy of it cannot go on" in found["determinism"].said
    assert "playing" not in found


def test_success_by_default_is_doubted_where_every_step_pays():
    class Paying(Line):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, 1.0, *rest

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    found = verdicts(lambda: TextEnv(Paying(), world))
    assert found["success"].verdict == "warning"
    assert "say World(success=...)" in found["success"].said
    there = replace(world, success=lambda env, reward, terminated: env.unwrapped.place == 4)
    assert verdicts(lambda: TextEnv(Paying(), there))["success"].verdict == "good"


@pytest.mark.parametrize(("told", "verdict"), [(False, "warning"), (True, "good")])
def test_phrases_that_change_without_a_word_are_found(told, verdict):
    def seen(observation, env):
        can = ["right"] if observation == 0 else ["left", "right"]
        lines = [f"place {observation}", *(["You can go " + ", ".join(can)] if told else [])]
        return {"mission": "go right", "descriptions": lines, "actions": can}

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": seen})
    found = verdicts(lambda: TextEnv(Line(), world))
    assert found["admissible phrases"].verdict == verdict
    if not told:
        assert "the prompt does not say to which: 'left'" in found["admissible phrases"].said


def test_a_slow_world_is_read_for_so_many_seconds():
    reads = []

    class Slow(Line):
        def step(self, action):
            reads.append(action)
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
            return super().step(action)

    world = World(actions={"left": 0, "right": 1}, renderers={"plain": render})
    assert "\nplace 1" in sample_texts([TextEnv(Slow(), world)], seconds=0.2)
    assert len(reads) < 60  # and 6000 without


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


@pytest.mark.slow
@pytest.mark.parametrize("env_id", text_env_ids())
def test_every_world_that_ships_is_fit(env_id):
    if needs := NEEDS.get(env_id):
        pytest.importorskip(needs)
    arguments = {"rooms": 3, "quest_length": 2} if env_id == "TextWorld-v0" else {}
    found = check_env(lambda: lang_agent.make(env_id, **arguments), episodes=2)
    assert not [one for one in found if one.verdict == "bad"]


NEEDS = {"Crafter-v0": "crafter", "TextWorld-v0": "textworld", "MiniHack-v0": "minihack",
         "NetHack-v0": "minihack"}  # fmt: skip


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
    assert len(code) < 28
    assert "# An observation is of Box" in "\n".join(code)
    with pytest.raises(LangAgentError, match="takes actions of Box"):
        cli.run(["new-world", "my_hill", "--wraps", "MountainCarContinuous-v0"])
    with pytest.raises(LangAgentError, match=r"cannot make 'Nothing-v0'.*its_module:TheirEnv-v0"):
        cli.run(["new-world", "my_nothing", "--wraps", "Nothing-v0"])


class Masked(Line):
    """Tells what is admissible as Gymnasium's environments do, and has no step limit of its own."""

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Dict({"place": gymnasium.spaces.Discrete(5)})
        self.action_space = gymnasium.spaces.Discrete(2, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"place": self.place}, self.mask()

    def step(self, action):
        _, *rest, _ = super().step(action - 3)
        return {"place": self.place}, *rest, self.mask()

    def mask(self):
        return {"action_mask": np.array([self.place > 0, True], dtype=np.int8)}


def test_a_package_whose_environment_has_a_mask_and_a_dictionary(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if "Masked-v0" not in gymnasium.registry:
        gymnasium.register("Masked-v0", entry_point=Masked)
    cli.run(["new-world", "my_mask", "--wraps", "Masked-v0"])
    code = (tmp_path / "my_mask.py").read_text()
    assert "action_mask says which phrases are admissible" in code
    assert "max_episode_steps=1000" in code
    assert all(len(line) <= 100 for line in code.splitlines())
    env = lang_agent.make("my_mask:MyMask-v0")
    actions, place = set(), -1
    for seed in range(4):
        prompt, info = env.reset(seed=seed)
        place = int(prompt.split("place is ")[1][0])
        assert info["actions"] == (("action 4",) if place == 0 else ("action 3", "action 4"))
        actions.add(info["actions"])
    assert len(actions) == 2
    env = lang_agent.make("my_mask:MyMask-v0", actions={"on": "action 4"})
    assert env.reset(seed=0)[1]["actions"] == ("on",)
