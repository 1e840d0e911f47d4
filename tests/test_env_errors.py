"""Environments that raise, or give rewards that are no numbers: named, left out or tried again."""

from __future__ import annotations

import json
import math
import traceback
from dataclasses import replace
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import BANDIT, Bandit, make_bandit
from test_golden import BASE, make_policy

from lang_agent import LangAgentError
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import ConstantAgent, RandomAgent
from lang_agent.cli import main as cli
from lang_agent.evaluation.evaluate import EvaluationError, evaluate
from lang_agent.files import TellWarning
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.stepping import MAX_IN_A_ROW, RETRIES, EnvError, EnvErrors, as_reward
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TextEnv
from lang_agent.train.trainer import resume, start


class Fragile(Bandit):
    """A bandit of two steps that breaks in some episodes, as ``fails`` (seed, try) says."""

    tries: dict[int, int] = {}  # noqa: RUF012

    def __init__(self, fails=lambda seed, tried: False, where="step", error=ZeroDivisionError):
        super().__init__()
        self.fails, self.where, self.error = fails, where, error

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        self.tries[seed] = self.tries.get(seed, 0) + 1
        if self.where == "reset":
            self._perhaps_fail()
        return super().reset(seed=seed)

    def step(self, action):
        self.steps += 1
        if self.where == "step" and self.steps == 2:
            self._perhaps_fail()
        state, reward, _, truncated, info = super().step(action)
        return state, reward, self.steps == 2, truncated, info

    def _perhaps_fail(self):
        if self.fails(self.seed, self.tries[self.seed]):
            raise self.error("broken by the test")


@pytest.fixture(autouse=True)
def untried():
    Fragile.tries.clear()


def fragile(**options: Any) -> TextEnv:
    return TextEnv(Fragile(**options), BANDIT, prompt="minimal")


def third(seed: int, tried: int) -> bool:
    return seed % 3 == 2


def test_an_error_in_a_step_is_named_and_keeps_its_traceback():
    with pytest.raises(EnvError) as found:
        list(play(ConstantAgent("go left"), [fragile(fails=third)], range(7, 10)))
    for said in ("Fragile", "step 1", "'go left'", "episode 1", "seed 8",
                 "ZeroDivisionError: broken by the test", "on_env_error"):  # fmt: skip
        assert said in str(found.value)
    assert "\n" not in str(found.value)
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    assert "_perhaps_fail" in "".join(traceback.format_exception(found.value))


def test_an_error_in_a_reset_is_named():
    with pytest.raises(EnvError, match=r"the reset of episode 2, seed 2: ZeroDivisionError"):
        list(play(ConstantAgent("go left"), [fragile(fails=third, where="reset")], range(5)))


def test_the_world_is_named_by_its_id_or_its_part_of_a_mixture():
    from lang_agent.text_env.mixture import Mixture

    gymnasium.register("Named-v0", entry_point=lambda: fragile(fails=third))
    for env in (gymnasium.make("Named-v0", disable_env_checker=True),
                Mixture([fragile(fails=third)], ["Named-v0"], [1.0])):  # fmt: skip
        with pytest.raises(EnvError, match="environment Named-v0 failed at step 1"):
            list(play(ConstantAgent("go left"), [env], range(5)))


@pytest.mark.parametrize("where", ["reset", "step"])
def test_skip_leaves_the_episode_out_and_goes_on(where):
    errors = EnvErrors("skip")
    envs = [fragile(fails=third, where=where) for _ in range(2)]
    played = list(play(RandomAgent(), envs, range(20), errors=errors))
    assert sorted(episode.seed for episode in played) == [s for s in range(20) if s % 3 != 2]
    assert all(len(episode.steps) == 2 for episode in played)
    assert errors.left_out == len(errors.seen) == 6
    assert [error.__class__ for error in errors.seen] == [EnvError] * 6


def test_a_group_is_left_out_as_a_whole():
    errors = EnvErrors("skip")
    fails = lambda seed, tried: seed == 1 and tried == 2  # noqa: E731
    envs = [fragile(fails=fails) for _ in range(2)]
    played = list(play(RandomAgent(), envs, range(4), group_size=3, errors=errors))
    assert sorted(episode.seed for episode in played) == [0, 0, 0, 2, 2, 2, 3, 3, 3]
    assert (errors.left_out, len(errors.seen)) == (3, 1)


def test_many_in_a_row_are_no_accident():
    errors = EnvErrors("skip")
    with pytest.raises(EnvError, match=f"{MAX_IN_A_ROW} in a row.*seed {MAX_IN_A_ROW - 1}"):
        list(play(RandomAgent(), [fragile(fails=lambda *_: True)], range(99), errors=errors))


@pytest.mark.parametrize("where", ["reset", "step"])
def test_retry_plays_the_same_seed_anew_and_then_gives_up(where):
    errors = EnvErrors("retry")
    fails = lambda seed, tried: seed == 1 and tried <= 2  # noqa: E731
    played = list(play(RandomAgent(), [fragile(fails=fails, where=where)], range(3), errors=errors))
    assert [(e.index, e.seed, len(e.steps)) for e in played] == [(0, 0, 2), (1, 1, 2), (2, 2, 2)]
    assert (errors.left_out, len(errors.seen)) == (0, 2)
    errors = EnvErrors("retry")
    with pytest.raises(EnvError, match=r"failed 4 times.*seed 1"):
        list(
            play(RandomAgent(), [fragile(fails=lambda seed, _: seed == 1)], range(3), errors=errors)
        )
    assert len(errors.seen) == 1 + RETRIES


def test_leaving_the_process_from_a_world_is_an_error_and_a_persons_stop_is_not():
    with pytest.raises(EnvError, match="SystemExit"):
        list(play(RandomAgent(), [fragile(fails=third, error=SystemExit)], range(3)))
    with pytest.raises(KeyboardInterrupt):
        list(play(RandomAgent(), [fragile(fails=third, error=KeyboardInterrupt)], range(3),
                  errors=EnvErrors("skip")))  # fmt: skip


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(LangAgentError, match="Did you mean 'skip'"):
        EnvErrors("skipp")
    with pytest.raises(LangAgentError, match="on_env_error"):
        replace(BASE, on_env_error="never")


# -- rewards ---------------------------------------------------------------------------------------


class Paying(Bandit):
    def __init__(self, reward):
        super().__init__()
        self.reward = reward

    def step(self, action):
        return 0, self.reward, True, False, {}


class Plain(gymnasium.Env):
    """Speaks text by itself."""

    def __init__(self, reward):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        return "Say something: ", {"actions": ("go left", "go right")}

    def step(self, action):
        return "", self.reward, True, False, {}


def paying(reward):
    return [TextEnv(Paying(reward), BANDIT), Plain(reward)]


@pytest.mark.parametrize(
    "reward",
    [math.nan, math.inf, -math.inf, None, "1", 1j, [1.0], (), np.array([1.0]), np.ones((2, 2)),
     torch.ones(1), torch.tensor(math.nan), np.float32("inf"), 10**400, object()],
    ids=lambda reward: repr(reward).partition(" object at ")[0],  # addresses differ by process
)  # fmt: skip
def test_a_reward_that_is_no_finite_number_is_named(reward):
    for env in paying(reward):
        with pytest.raises(EnvError) as found:
            list(play(ConstantAgent("go left"), [env], [5]))
        for said in ("seed 5", "step 0", "the reward is", "no finite number"):
            assert said in str(found.value)
        if len(repr(reward)) < 100:
            assert repr(reward) in str(found.value)
        assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    "reward",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).bfloat16(),
     Fraction(1, 2), torch.tensor(0.5, requires_grad=True)],
    ids=repr,
)  # fmt: skip
def test_scalars_of_any_library_are_rewards(reward):
    for env in paying(reward):
        (episode,) = play(ConstantAgent("go left"), [env], [0])
        assert episode.total_reward == 0.5
        assert type(episode.steps[0].reward) is float
    assert (as_reward(True), as_reward(np.int64(3))) == (1.0, 3.0)
    for several in (np.zeros(3), [-1, 0]):
        with pytest.raises(LangAgentError, match="TransformReward makes one number of several"):
            as_reward(several)


# -- runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    # two episodes of training in three dozen, and none of the first evaluation
    gymnasium.register(
        "FragileRun-v0",
        entry_point=lambda **options: TextEnv(
            Fragile(lambda seed, tried: seed < EVALUATION_SEED and seed % 17 == 3),
            BANDIT,
            **options,
        ),
    )
    return "FragileRun-v0"


def parameters(run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.policy.parameters()])


def test_a_stopped_run_is_saved_and_told_to_skip_ends_as_one_that_always_did(world, tmp_path):
    config = replace(
        BASE, env=world, text=TextConfig(prompt="minimal"), steps=120, rollout_steps=24,
        on_env_error="skip", checkpoint_every=100,
    )  # fmt: skip
    whole = start(config, tmp_path / "whole", make_policy(False))
    whole.run()
    lines = [
        json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()
    ]
    failed = sum(line.get("env_errors", 0) for line in lines)
    assert failed >= 2
    named = [
        alarm for line in lines for alarm in line.get("alarms", ()) if "FragileRun-v0" in alarm
    ]
    assert len(named) == failed

    stopped = start(replace(config, on_env_error="stop"), tmp_path / "run", make_policy(False))
    with (
        pytest.raises(EnvError, match="FragileRun-v0") as found,
        pytest.warns(TellWarning, match="Saved"),
    ):
        stopped.run()
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    again = resume(tmp_path / "run", on_env_error="skip")
    assert again.progress.updates == stopped.progress.updates
    again.run()
    assert again.progress.episodes == whole.progress.episodes
    assert torch.equal(parameters(again), parameters(whole))
    other = start(replace(config, on_env_error="retry"), tmp_path / "other", make_policy(False))
    with pytest.raises(EnvError), pytest.warns(TellWarning, match="Saved"):
        other.run()


def test_an_evaluation_keeps_what_was_finished(capsys, tmp_path, world):
    with pytest.raises(EvaluationError, match="seed 8") as found:
        evaluate(ConstantAgent("go left"), [fragile(fails=third)], 9, name="f", first_seed=6)
    (row,) = found.value.rows
    assert (row.task, row.episodes, row.env_errors) == ("f", 2, 1)
    assert isinstance(found.value.__cause__, ZeroDivisionError)
    (row,) = evaluate(
        ConstantAgent("go left"), [fragile(fails=third)], 9, name="f", first_seed=6,
        on_env_error="skip",
    )  # fmt: skip
    assert (row.episodes, row.env_errors) == (6, 3)
    with pytest.raises(EvaluationError, match="seed 2"):
        evaluate(RandomAgent(), [fragile(fails=lambda *_: True)], 3, first_seed=0,
                 on_env_error="skip")  # fmt: skip

    gymnasium.register(
        "FragileEval-v0",
        entry_point=lambda **options: TextEnv(
            Fragile(lambda seed, tried: seed == EVALUATION_SEED + 5), BANDIT, **options
        ),
    )
    file = tmp_path / "new" / "e.json"
    asked = ["evaluate", "FragileEval-v0", "--agent", "constant:go left", "--episodes", "9",
             "--slots", "1", "--json", str(file)]  # fmt: skip
    cli.run([*asked, "--out", str(tmp_path / "r")])
    told = json.loads(file.read_text())
    assert [(row["episodes"], row["env_errors"]) for row in told["evaluations"]] == [(9, 1)]
    said = capsys.readouterr().out
    assert "1 ended by errors, the first:" in said
    assert "seed 1000000005" in said
    assert "FragileEval-v0" in said


def test_demonstrations_leave_out_what_cannot_be_played(tmp_path):
    gymnasium.register(
        "FragileDemos-v0",
        entry_point=lambda **options: TextEnv(Fragile(third), BANDIT, **options),
    )
    asked = ["demos", "FragileDemos-v0", "--agent", "random", "--episodes", "7"]
    with pytest.raises(EnvError, match="seed 2"):
        cli.run([*asked, "--out", str(tmp_path / "d.jsonl")])
    assert list(tmp_path.iterdir()) == []
    cli.run([*asked, "--out", str(tmp_path / "d.jsonl"), "--on-env-error", "skip"])
    lines = (tmp_path / "d.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == [0, 1, 3, 4, 6]


def test_more_environments_than_the_agent_has_slots_are_refused(policy):
    envs = [make_bandit() for _ in range(3)]
    with pytest.raises(LangAgentError, match="3 environments, and the agent acts in 2"):
        list(play(PolicyAgent(policy, 2), envs, range(3)))
    with pytest.raises(LangAgentError, match="episodes=0 must be 1 or more"):
        evaluate(RandomAgent(), envs, 0)
