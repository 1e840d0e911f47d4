"""The KL penalty: its reference, its two places, and the coefficient that adapts."""

from __future__ import annotations

import copy
import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
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

from lang_agent.learn.advantages import alike, leave_one_out, minus_group_mean, standardise
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.reference import Reference, adapted, read_reference
from lang_agent.learn.sequences import to_samples
from lang_agent.models.decide import DecideConfig


@pytest.fixture
def policy():
    return new_policy()


def test_the_reference_is_where_the_policy_began_and_moves_away(policy):
    reference = Reference(copy.deepcopy(policy))
    episodes = rollout(policy)
    metrics = learn(policy, episodes, reference=reference, kl_coef=0.1)
    assert metrics["reference_kl"] == pytest.approx(0, abs=1e-5)
    moved = learn(policy, rollout(policy), reference=reference, kl_coef=0.1, learning_rate=1e-2)
    assert abs(moved["reference_kl"]) > 1e-4


def test_the_penalty_holds_the_policy_back(policy):
    far = []
    for coefficient in (0.01, 30.0):
        other, reference = copy.deepcopy(policy), Reference(copy.deepcopy(policy))
        for seed in range(4):
            metrics = learn(
                other,
                rollout(other, seed),
                reference=reference,
                kl_coef=coefficient,
                target_kl=None,
            )
        episodes = rollout(other, 9)
        samples = assess_samples(other, episodes)
        theirs = read_reference(other, reference, [samples], DecideConfig())
        ratios = [e.steps[0].trace.log_probs[0] - theirs[at, 0][0] for at, e in enumerate(episodes)]
        far.append(sum(ratio**2 for ratio in ratios))
        assert metrics["kl_coef"] == coefficient
    assert far[1] < 0.5 * far[0]


def uniform(policy):
    """A reference by which every phrase is as likely as any other."""
    frozen = copy.deepcopy(policy)
    with torch.no_grad():
        frozen.model.transformer.ln_f.weight.zero_()  # every score is 0: half and half
        frozen.model.transformer.ln_f.bias.zero_()
    return Reference(frozen)


def assessed(policy, episodes, **options):
    """(advantage, log-ratio to the uniform reference) of the bandit's only decision, by episode."""
    samples = assess_samples(policy, episodes, uniform(policy), **options)
    found = {s.places[0][0]: s.advantages[0][0] for s in samples}
    steps = [e.steps[0] for e in episodes]
    ratios = [step.decision.tokens.log_probs[0] - math.log(0.5) for step in steps]
    return [found[at] for at in range(len(steps))], ratios


def test_a_penalty_in_the_reward_is_taken_off_it(policy):
    episodes = rollout(policy, count=8)
    options = {"algorithm": "reinforce", "kl_coef": 2.0, "kl_in": "reward", "normalise": "none"}
    found, ratios = assessed(policy, episodes, **options)
    rewards = [e.steps[0].reward for e in episodes]
    wanted = [reward - 2.0 * ratio for reward, ratio in zip(rewards, ratios, strict=True)]
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("rewards", [[1.0] * 4, [0.0, 1.0, 1.0, 0.0], [0.1, 0.1, 0.1, 0.1000001]])
@pytest.mark.parametrize("algorithm", ["grpo", "reinforce", "ppo", "rloo"])
def test_a_penalty_in_the_reward_keeps_its_size_however_rewards_are_normalised(
    policy, algorithm, rewards
):
    """By hand: the rewards' own advantages, normalised, and -kl_coef times the log-ratio, less the
    group's mean of it where the algorithm compares groups."""
    with torch.no_grad():
        policy.model.transformer.ln_f.weight.mul_(2.0)
    episodes = rollout(policy, count=8, group_size=4)
    for at, e in enumerate(episodes):
        e.steps[0].reward = rewards[at % 4]
        put_tokens(e.steps[0], value=0.0)
    options = {"algorithm": algorithm, "kl_coef": 0.01, "kl_in": "reward"}
    if algorithm != "rloo":
        options["normalise"] = "group" if algorithm == "grpo" else "batch"
    found, ratios = assessed(policy, episodes, **options)
    assert max(ratios) - min(ratios) > 0.05
    paid = [reward for _ in range(2) for reward in rewards]
    groups = [e.seed for e in episodes]
    penalties = [-0.01 * ratio for ratio in ratios]
    if algorithm in ("reinforce", "ppo"):
        own = standardise(paid)
    elif algorithm == "grpo":
        spread = statistics.stdev(rewards) if not alike(rewards) else 1.0
        own = [a / spread for a in minus_group_mean(paid, groups)]
        penalties = minus_group_mean(penalties, groups)
    else:
        own, penalties = leave_one_out(paid, groups), leave_one_out(penalties, groups)
    wanted = [a + p for a, p in zip(own, penalties, strict=True)]
    assert found == pytest.approx(wanted, abs=2e-5)
    if alike(rewards):
        assert max(map(abs, found)) < 0.01


def test_with_token_credit_each_token_bears_its_own_part_of_the_penalty(policy):
    with torch.no_grad():
        policy.value_head.weight.zero_()
    frozen = copy.deepcopy(policy)
    with torch.no_grad():
        frozen.model.transformer.ln_f.weight.mul_(4.0)
    episodes = written(policy)
    for e in episodes:
        e.steps[0].reward, e.steps[0].token_rewards = 1.0, []
    found = token_credit(policy, episodes, Reference(frozen), kl_coef=0.5, kl_in="reward")
    decide, nothing = DecideConfig("generate", max_new_tokens=3), [[[0.0]]] * len(episodes)
    samples = to_samples(policy, episodes, nothing, nothing, "generate")
    theirs = read_reference(policy, Reference(frozen), [samples], decide)
    for at, (e, (credit, returns)) in enumerate(zip(episodes, found, strict=True)):
        pairs = zip(e.steps[0].trace.log_probs, theirs[at, 0], strict=True)
        taken = [0.5 * (p - q) for p, q in pairs]
        assert sum(map(abs, taken)) > 0.01
        wanted = [1.0 - sum(taken[at:]) for at in range(len(taken))]
        assert credit == pytest.approx(wanted, abs=1e-5)
        assert returns == pytest.approx(wanted, abs=1e-5)


def test_the_adaptive_coefficient_by_hand():
    config = LearnConfig(kl_coef=0.5, kl_target=0.1, kl_horizon=1000)
    assert adapted(0.5, 0.3, 100, config) == pytest.approx(0.5 * 1.02)  # error held at 0.2
    assert adapted(0.5, 0.09, 100, config) == pytest.approx(0.5 * 0.99)
    assert adapted(0.5, -3.0, 100, config) == pytest.approx(
        0.5 * 0.98
    )  # an estimate can be below 0
    assert adapted(0.5, 0.0, 6000, config) == pytest.approx(0.5 * 0.8)  # six horizons, one step
    assert adapted(0.5, 9.0, 6000, config) == pytest.approx(0.5 * 1.2)
    assert adapted(0.5, 9.0, 100, LearnConfig()) == 0.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 1e6), st.integers(1, 10**7)), min_size=1, max_size=20))
def test_the_adaptive_coefficient_stays_positive_and_comes_back(updates):
    config = LearnConfig(kl_coef=0.1, kl_target=0.5, kl_horizon=1000)
    coefficient = 0.1
    for divergence, decisions in updates * 20:
        coefficient = adapted(coefficient, divergence, decisions, config)
        assert 1e-4 <= coefficient <= 100
    replace(config, kl_coef=coefficient)
    for _ in range(100):
        coefficient = adapted(coefficient, 5.0, 1000, config)
    assert coefficient == 100


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
@pytest.mark.parametrize("algorithm", ["ppo", "a2c", "grpo", "trpo"])
def test_an_update_uses_the_coefficient_that_it_reports_and_moves_it_for_the_next(
    policy, algorithm, kl_in
):
    frozen = copy.deepcopy(policy)
    with torch.no_grad():
        frozen.model.transformer.ln_f.weight.mul_(0.5)
    episodes = rollout(policy, group_size=4)
    options = {"algorithm": algorithm, "kl_in": kl_in, "group_size": 4, "target_kl": 0.05}
    if algorithm == "a2c":
        del options["target_kl"]

    def update_of(coefficient, state, **more):
        ours = copy.deepcopy(policy)
        told = learn(ours, copy.deepcopy(episodes), state, Reference(copy.deepcopy(frozen)),
                     kl_coef=coefficient, **options, **more)  # fmt: skip
        return told, torch.cat([p.detach().flatten() for p in ours.parameters()])

    target = {"kl_target": 0.5, "kl_horizon": 100}
    state = LearnState(kl_coef=3.0)
    told, moved = update_of(0.5, state, **target)
    assert told["kl_coef"] == 3.0
    _, fixed = update_of(3.0, LearnState())
    assert torch.equal(moved, fixed)
    assert not torch.equal(moved, update_of(0.5, LearnState())[1])
    error = min(max(told["reference_kl"] / 0.5 - 1, -0.2), 0.2)
    assert state.kl_coef == pytest.approx(3.0 * (1 + error * 32 / 100))
