"""Credit, groups, the KL penalty, TRPO, alarms, skipped steps and exact resume."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import make_bandit
from hypothesis import given
from hypothesis import strategies as st
from learn_bandit import (
    assess_samples,
    learn,
    new_policy,
    put_tokens,
    rollout,
    token_credit,
    written,
)
from safetensors.torch import load_file

from lang_agent import LangAgentError, PolicyAgent
from lang_agent.config import load_config, save_config
from lang_agent.episode import Decision, Episode, Step, TextObservation, TokenTrace
from lang_agent.learn.advantages import (
    alike,
    explained_variance,
    gae,
    leave_one_out,
    minus_group_mean,
    standard_deviations,
    standardise,
    token_gae,
)
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.algorithms import ALGORITHMS, at_progress, resolve
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages, flat_groups
from lang_agent.learn.objective import total_loss
from lang_agent.learn.reference import read_token_values
from lang_agent.learn.sequences import collate, to_samples, tokens_weight
from lang_agent.models.decide import DecideConfig
from lang_agent.models.store import latest_checkpoint
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig
from lang_agent.train.alarms import Watch, alarms
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import resume, start

numbers = st.floats(-5, 5)


def episode(seed, *rewards, values=None):
    """An episode with these rewards, of which no token was ever read."""
    values = values or [0.0] * len(rewards)
    seen = TextObservation("", ("a", "b"))
    steps = [
        Step(seen, Decision("a", tokens=TokenTrace([], 0, value=value)), reward, {})
        for reward, value in zip(rewards, values, strict=True)
    ]
    return Episode(0, seed, steps, terminated=True)


def credit(name, episodes, state=None, **options):
    config = resolve(LearnConfig(algorithm=name, **options))
    rewards = [[step.reward for step in e.steps] for e in episodes]
    return ALGORITHMS[name].credit(episodes, rewards, config, state or LearnState())


# -- credit ------------------------------------------------------------------------------------


def test_token_credit_by_hand():
    # Q = 2 + 1 = 3; deltas: 2 - 1, 0 - 2, 3 - 0; trace 1/2, last to first: 3, -2 + 1.5, 1 - .25
    assert token_gae(2.0, [1.0, 2.0, 0.0], 0.5) == [0.75, -0.5, 3.0]
    assert token_gae(2.0, [1.0], 0.5) == [2.0]
    # Q = 3, of which tokens were given 0.5 and 1: deltas 0.5 + 2 - 1, 1 + (3 - 1.5) - 2
    assert token_gae(2.0, [1.0, 2.0], 1.0, [0.5, 1.0]) == [2.0, 0.5]


@given(numbers, st.lists(numbers, min_size=1, max_size=6), st.floats(0, 1))
def test_token_credit_keeps_the_turns(advantage, values, trace):
    credit = token_gae(advantage, values, trace)
    q = advantage + values[0]
    assert credit[-1] == pytest.approx(q - values[-1])
    whole = token_gae(advantage, values, 1.0)
    assert whole == pytest.approx([q - value for value in values])


def test_turns_end_where_their_tokens_end_when_every_reward_is_zero():
    values = [0.5, 0.5]
    turns = gae([0.0, 0.0], values, 0.0, 0.9, 1.0)  # -0.5 + 0.9 * 0.5 + 0.9 * -0.5, then -0.5
    assert turns == pytest.approx([-0.5, -0.5])
    assert token_gae(turns[0], [0.5, 0.5, 0.5], 1.0) == pytest.approx([-0.5] * 3)


def test_group_baselines_by_hand():
    returns, groups = [1.0, 3.0, 5.0, 2.0], ["a", "a", "a", "b"]
    assert minus_group_mean(returns, groups) == [-2.0, 0.0, 2.0, 0.0]
    assert leave_one_out(returns, groups) == pytest.approx([-3.0, 0.0, 3.0, 0.0])
    spread = standard_deviations([1.0, 3.0, 4.0, 4.0, 9.0], ["a", "a", "b", "b", "c"])
    assert spread == {"a": pytest.approx(2**0.5), "b": 0.0, "c": 0.0}  # (1 + 1) / (2 - 1)


def test_credit_of_the_grouped_algorithms():
    episodes = [episode(7, 0.0, 1.0), episode(7, 0.0), episode(8, 2.0), episode(8, 4.0)]
    # discounted by 1/2: 0.5, 0, 2, 4
    assert credit("grpo", episodes, discount=0.5)[0] == [[0.25, 0.25], [-0.25], [-1.0], [1.0]]
    assert credit("rloo", episodes, discount=0.5)[0] == [[0.5, 0.5], [-0.5], [-2.0], [2.0]]


def test_grpo_without_a_discount_compares_what_episodes_were_paid_in_all():
    """As in the paper; a discount tells a long way to a reward from a short one."""
    long, short = episode(7, 0.0, 0.0, 1.0), episode(7, 1.0)
    assert credit("grpo", [long, short], discount=1.0)[0] == [[0.0] * 3, [0.0]]
    apart = credit("grpo", [long, short], discount=0.5)[0]  # 0.25 and 1
    assert apart == [[-0.375] * 3, [0.375]]
    for discount in (0.5, 1.0):  # one decision, as a text is, has nothing to discount
        one = credit("grpo", [episode(7, 0.0), episode(7, 1.0)], discount=discount)[0]
        assert one == [[-0.5], [0.5]]


def test_reinforce_has_three_baselines():
    episodes = [episode(0, 0.0, 4.0, values=[1.0, 2.0])]
    assert credit("reinforce", episodes, discount=0.5)[0] == [[2.0, 4.0]]
    assert credit("reinforce", episodes, discount=0.5, baseline="value")[0] == [[1.0, 2.0]]
    state = LearnState()
    moving = {"discount": 0.5, "baseline": "moving"}
    assert credit("reinforce", episodes, state, **moving)[0] == [[-1.0, 1.0]]
    assert state.moving_return == 3.0
    credit("reinforce", [episode(0, 13.0)], state, **moving)
    assert state.moving_return == pytest.approx(4.0)  # 3 + 0.1 * (13 - 3)


def test_explained_variance_by_hand():
    assert explained_variance([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == 1.0
    assert explained_variance([2.0, 2.0, 2.0], [1.0, 2.0, 3.0]) == 0.0
    assert explained_variance([0.0, 1.0], [5.0, 5.0]) == 0.0


def test_flat_groups_teach_nothing():
    config = resolve(LearnConfig(algorithm="grpo", reward_clip=1.0, drop_flat_groups=True))
    flat = [episode(1, 1.0), episode(1, 3.0), episode(2, 0.0), episode(2, 1.0)]
    assert flat_groups(flat, config) == {1}  # clipped, the first group's returns are all 1


@pytest.mark.parametrize(
    ("numbers", "same"),
    [([], True), ([0.0, 0.0], True), ([0.1] * 3, True), ([0.3, 0.1 + 0.2], True),
     ([-5.0, -5.0], True), ([0.0, 1e-12], False), ([1e-9, 3e-9], False), ([1.0, 1.00001], False),
     ([-1.0, 1.0], False)],
)  # fmt: skip
def test_numbers_are_alike_but_for_rounding_whatever_their_size(numbers, same):
    assert alike(numbers) is same
    if same:
        assert minus_group_mean(numbers, [0] * len(numbers)) == [0.0] * len(numbers)
        assert standardise(numbers) == [0.0] * len(numbers)


def test_entropy_bonus_schedule():
    config = LearnConfig(entropy_coef=0.1, entropy_final=0.02)
    assert at_progress(config, 0.5).entropy_coef == pytest.approx(0.06)
    assert at_progress(LearnConfig(), 0.5) == LearnConfig()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algorithm": "sarsa"}, "sarsa"),
        ({"algorithm": "grpo", "group_size": 1}, "group_size must be 2"),
        ({"normalise": "group"}, "no groups"),
        ({"algorithm": "trpo", "target_kl": None}, "needs a target_kl"),
    ],
)
def test_what_an_algorithm_needs_must_be_there(options, message):
    with pytest.raises(LangAgentError, match=message):
        resolve(LearnConfig(**options))


@pytest.fixture
def policy():
    return new_policy()


# -- on a policy -------------------------------------------------------------------------------


def test_groups_share_a_seed_and_draw_each_for_itself(policy):
    envs = [make_bandit(prompt="minimal") for _ in range(3)]
    agent = PolicyAgent(policy, 3)
    episodes = sorted(play(agent, envs, range(8), group_size=4), key=lambda e: e.index)
    assert [e.seed for e in episodes] == [seed for seed in range(8) for _ in range(4)]
    said = [e.steps[0].decision.action for e in episodes]
    assert any(len(set(said[at : at + 4])) > 1 for at in range(0, 32, 4))


def test_alarms_sound_when_they_should():
    fine = {"success": 0.3, "invalid_rate": 0.0, "entropy": 1.0, "grad_norm": 1.0}
    watch = Watch()
    for _ in range(6):
        assert alarms(watch, fine) == []
    bad = {
        "success": 0.3,
        "invalid_rate": 0.5,
        "entropy": 0.05,
        "grad_norm": 50.0,
        "flat_groups": 0.95,
        "skipped": 2.0,
    }
    found = " ".join(alarms(watch, bad))
    for words in ("entropy collapsed", "jumped to 50", "95% of the groups", "50% of the actions",
                  "2 steps skipped"):  # fmt: skip
        assert words in found
    solved = {**bad, "success": 0.95, "grad_norm": 1.0, "invalid_rate": 0.0, "skipped": 0.0}
    assert alarms(watch, solved) == []


def test_a_group_without_a_spread_is_not_divided_by_it(policy):
    """PPO normalised by group: advantages are the critic's errors, and some remain."""
    episodes = rollout(policy, count=8, group_size=4)
    for at, e in enumerate(episodes):
        e.steps[0].reward = 1.0
        put_tokens(e.steps[0], value=0.25 * (at % 4))
    samples = assess_samples(policy, episodes, normalise="group", group_size=4)
    found = {s.places[0][0]: s.advantages[0][0] for s in samples}
    assert [found[at] for at in range(len(episodes))] == [1.0, 0.75, 0.5, 0.25] * 2


@pytest.mark.parametrize(
    ("clip", "scale", "kept"),
    [(None, 1.0, 1.0), (1.5, 1.0, 0.5), (1.5, 2.0, 0.25), (9.0, 2.0, 1.0)],
)
def test_what_is_clipped_off_a_turn_is_taken_off_its_tokens_in_proportion(
    policy, clip, scale, kept
):
    """Tokens paid 0, 1, 2... and the turn 3 in all, V = 0: a token's advantage is what it and those
    after it were paid."""
    with torch.no_grad():
        policy.value_head.weight.zero_()
    episodes = [e for e in written(policy) if len(e.steps[0].decision.tokens.token_ids) == 3]
    assert episodes
    for e in episodes:
        e.steps[0].token_rewards, e.steps[0].reward = [0.0, 1.0, 2.0], 3.0
    options = {"reward_clip": clip, "reward_scale": scale}
    for credit, returns in token_credit(policy, episodes, **options):
        by = kept * scale
        assert credit == pytest.approx([3 * by, 3 * by, 2 * by], abs=1e-6)
        assert returns == pytest.approx(credit, abs=1e-6)


def test_token_credit_of_written_text_sums_to_its_turns(policy):
    episodes = rollout(policy, count=8, decide="generate", max_new_tokens=5)
    config = resolve(LearnConfig(credit="tokens", normalise="none"))
    decide = DecideConfig(decide="generate", max_new_tokens=5)
    state, metrics = LearnState(), {}
    samples = compute_advantages(
        policy, episodes, ALGORITHMS["ppo"], config, decide, state, None, metrics
    )
    values = read_token_values(policy, [samples])
    for sample in samples:
        for (at, turn), credit in zip(sample.places, sample.advantages, strict=True):
            trace = episodes[at].steps[turn].trace
            assert len(credit) == len(values[at, turn]) == len(trace.token_ids)
            assert values[at, turn][0] == pytest.approx(trace.value, abs=1e-5)
    before = copy.deepcopy(policy.state_dict())
    metrics = learn(policy, episodes, credit="tokens", decide=decide)
    assert metrics["value_loss"] >= 0
    assert any(not torch.equal(before[name], now) for name, now in policy.state_dict().items())


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce", "ppo"])
@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean", "constant"])
def test_how_tokens_weigh_by_hand(policy, algorithm, aggregation):
    """-A of each token (its ratio is 1, or its gradient that of log pi): over all tokens, over each
    text's and then over texts, or over the most tokens there could be."""
    decide = DecideConfig("generate", max_new_tokens=4)
    episodes = rollout(policy, count=8, group_size=4, decide="generate", max_new_tokens=4)
    config = LearnConfig(algorithm, loss_aggregation=aggregation, entropy_coef=0.0, group_size=4)
    texts = []
    for at, e in enumerate(episodes):
        (step,), cut = e.steps, 1 + at % 4  # texts of one to four tokens
        trace = step.trace
        put_tokens(step, token_ids=trace.token_ids[:cut], log_probs=trace.log_probs[:cut])
        texts.append((-1.0 + at, step.trace.log_probs))
    nothing = [[[a]] for a, _ in texts]
    samples = to_samples(policy, episodes, nothing, nothing, "generate")
    lengths = [len(log_probs) for _, log_probs in texts]
    assert len(set(lengths)) > 2
    by_text = [
        (sum(-a * p for p in log_probs) if algorithm == "reinforce" else -a * len(log_probs))
        for a, log_probs in texts
    ]
    wanted = {
        "token-mean": sum(by_text) / sum(lengths),
        "sequence-mean": sum(t / n for t, n in zip(by_text, lengths, strict=True)) / len(texts),
        "constant": sum(by_text) / (4 * len(texts)),
    }[aggregation]
    row = ALGORITHMS[algorithm]
    batch, weight = collate(samples, policy.device), tokens_weight(samples)
    _, measured = total_loss(policy, row, batch, config, decide, weight)
    assert measured["policy_loss"].item() / len(texts) == pytest.approx(wanted, abs=1e-4)
    assert measured["approx_kl"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "told", "new", "rate"),
    [
        ("ppo", None, True, 2e-3),
        ("ppo", None, False, 1e-4),
        ("trpo", None, False, 2e-3),  # moves the value head alone
        ("ppo", 0.5, False, 0.5),
        ("imitation", None, False, 1e-4),
    ],
)
def test_the_learning_rate_depends_on_whether_the_model_was_trained_before(
    algorithm, told, new, rate
):
    assert resolve(LearnConfig(algorithm, learning_rate=told), new=new).learning_rate == rate


def test_the_rate_that_a_run_took_stands_in_its_configuration(tmp_path):
    first = start(RUN, tmp_path / "new")
    first.save()
    for name, policy in (("loaded", None), ("in memory", first.policy)):
        config = replace(RUN, model=str(tmp_path / "new"))
        start(config, tmp_path / name, policy)
        file = tmp_path / name / "config.yaml"
        assert load_config(file, TrainConfig).learn.learning_rate == 1e-4
    assert load_config(tmp_path / "new/config.yaml", TrainConfig).learn.learning_rate == 2e-3
    again = resume(tmp_path / "new")
    assert again.learn.learning_rate == 2e-3
    assert again.learn == first.learn


# -- runs --------------------------------------------------------------------------------------

RUN = TrainConfig(
    env="BabyAI-GoToLocalS5N2-v0",
    text=TextConfig(prompt="minimal", env_args=("max_steps=12",)),
    precision="fp32",
    steps=600,
    rollout_steps=60,
    envs=4,
    checkpoint_every=1,
    eval_episodes=0,
    threads=1,
    hindsight=0.8,
    learn=LearnConfig(
        algorithm="grpo", group_size=2, kl_coef=0.1, kl_target=0.001, kl_horizon=200, epochs=1
    ),
)


def final_parameters(folder):
    return load_file(latest_checkpoint(folder) / "model.safetensors")


def test_a_run_killed_at_any_moment_ends_as_one_never_killed(tmp_path):
    whole = start(RUN, tmp_path / "whole")
    whole.run()
    save_config(RUN, tmp_path / "run.yaml")
    command = [sys.executable, "-m", "lang_agent.cli.main", "train", "--config", "run.yaml"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        [*command, "--out", "killed"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log, deadline = tmp_path / "killed/metrics.jsonl", time.time() + 60
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert time.time() < deadline
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    again = resume(tmp_path / "killed")
    assert 0 < again.progress.steps < RUN.steps
    again.run()
    expected, found = final_parameters(tmp_path / "whole"), final_parameters(tmp_path / "killed")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert again.progress.learning == whole.progress.learning
    lines = [json.loads(line) for line in log.open()]
    assert [line["updates"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["kl_coef"] != 0.1


def test_a_run_that_is_never_finite_keeps_its_last_checkpoint(tmp_path):
    config = replace(RUN, learn=LearnConfig(learning_rate=1e-3, epochs=4, minibatch_decisions=16))
    trainer = start(config, tmp_path / "run")
    trainer._iterate(None, None)
    saved = trainer.save()
    with torch.no_grad():
        trainer.policy.value_head.weight.fill_(float("nan"))
    with pytest.raises(LangAgentError, match="last checkpoint is good"):
        trainer.run()
    assert latest_checkpoint(tmp_path / "run") == saved
    assert torch.isfinite(resume(tmp_path / "run").policy.value_head.weight).all()
