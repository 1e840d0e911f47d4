"""Credit, groups, the KL penalty, TRPO, alarms, skipped steps and exact resume."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import make_bandit
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent, learner
from lang_agent.advantages import (
    alike,
    explained_variance,
    gae,
    leave_one_out,
    minus_group_mean,
    standard_deviations,
    standardise,
    token_gae,
)
from lang_agent.alarms import Watch, alarms
from lang_agent.algorithms import ALGORITHMS, LearnState, at_progress, settle
from lang_agent.checkpoint import latest_checkpoint
from lang_agent.config import DecideConfig, LearnConfig, TextConfig, TrainConfig, save_config
from lang_agent.credit import assess, flat_groups
from lang_agent.learner import MAX_SKIPPED, update
from lang_agent.optimizer import Optimizer
from lang_agent.reference import Reference, adapted, read_reference
from lang_agent.rollout import NO_LABEL, Decision, Episode, Step, TextObservation, play
from lang_agent.trainer import resume, start
from lang_agent.trust_region import conjugate_gradients

numbers = st.floats(-5, 5)


def episode(seed, *rewards, values=None):
    """An episode with these rewards, of which no token was ever read."""
    values = values or [0.0] * len(rewards)
    seen = TextObservation("", ("a", "b"))
    steps = [
        Step(seen, Decision("a", value=value), reward, {})
        for reward, value in zip(rewards, values, strict=True)
    ]
    return Episode(0, seed, steps, terminated=True)


def credit(name, episodes, state=None, **options):
    config = settle(LearnConfig(algorithm=name, **options))
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
    config = settle(LearnConfig(algorithm="grpo", reward_clip=1.0, drop_flat_groups=True))
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
        settle(LearnConfig(**options))


# -- on a policy -------------------------------------------------------------------------------


def texts(prompt="minimal"):
    return [make_bandit(prompt=prompt).reset(seed=seed)[0] for seed in range(16)]


def rollout(policy, seed=0, count=32, group_size=1, **options):
    envs = [make_bandit(prompt="minimal", invalid_action="end") for _ in range(16)]
    generator = torch.Generator().manual_seed(seed)
    agent = PolicyAgent(policy, 16, DecideConfig(**options), generator=generator)
    played = play(agent, envs, range(count // group_size), group_size=group_size)
    return sorted(played, key=lambda e: e.index)


@pytest.fixture
def policy():
    return LanguagePolicy.from_scratch("nano", seed=1, texts=texts())


def learn(policy, episodes, state=None, reference=None, decide=DecideConfig(), **options):  # noqa: B008
    rate, name = options.pop("learning_rate", 1e-3), options.get("optimizer", "muon")
    optimizer = Optimizer(policy, name, rate, 0.0)
    row = ALGORITHMS[options.get("algorithm", "ppo")]
    if "minibatch_decisions" in row.uses:
        options = {"minibatch_decisions": 16, **options}
    config = LearnConfig(**options)
    generator = torch.Generator().manual_seed(0)
    return update(policy, optimizer, episodes, config, decide, generator, state, reference)


def test_groups_share_a_seed_and_are_whole_whatever_the_steps(policy):
    envs = [make_bandit(prompt="minimal") for _ in range(3)]
    agent = PolicyAgent(policy, 3, generator=torch.Generator().manual_seed(0))
    episodes = list(play(agent, envs, iter(range(100)), min_steps=5, group_size=4))
    seeds = [e.seed for e in sorted(episodes, key=lambda e: e.index)]
    assert seeds == [seed for seed in range(len(seeds) // 4) for _ in range(4)]
    assert len(seeds) == 8


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
        read_reference(other, reference, samples, LearnConfig(), DecideConfig())
        ratios = [
            e.steps[0].decision.log_probs[0] - e.steps[0].decision.reference[0] for e in episodes
        ]
        far.append(sum(ratio**2 for ratio in ratios))
        assert metrics["kl_coef"] == coefficient
    assert far[1] < 0.5 * far[0]


def assess_samples(policy, episodes, reference=None, state=None, **options):
    config = settle(LearnConfig(**options))
    row = ALGORITHMS[config.algorithm]
    state = state or LearnState()
    return assess(policy, episodes, row, config, DecideConfig(), state, reference, {})


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
    found = {id(s.decisions[0]): s.advantages[0][0] for s in samples}
    steps = [e.steps[0] for e in episodes]
    ratios = [step.decision.log_probs[0] - math.log(0.5) for step in steps]
    return [found[id(step.decision)] for step in steps], ratios


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
        e.steps[0].reward, e.steps[0].decision.value = rewards[at % 4], 0.0
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


def test_a_group_without_a_spread_is_not_divided_by_it(policy):
    """PPO normalised by group: advantages are the critic's errors, and some remain."""
    episodes = rollout(policy, count=8, group_size=4)
    for at, e in enumerate(episodes):
        e.steps[0].reward, e.steps[0].decision.value = 1.0, 0.25 * (at % 4)
    samples = assess_samples(policy, episodes, normalise="group", group_size=4)
    found = {id(s.decisions[0]): s.advantages[0][0] for s in samples}
    assert [found[id(e.steps[0].decision)] for e in episodes] == [1.0, 0.75, 0.5, 0.25] * 2


def written(policy, count=8):
    return rollout(policy, count=count, decide="generate", max_new_tokens=3)


def token_credit(policy, episodes, reference=None, **options):
    """(advantages, returns) of each episode's tokens, where each has its own."""
    options = {"credit": "tokens", "normalise": "none", **options}
    config, decide = settle(LearnConfig(**options)), DecideConfig("generate", max_new_tokens=3)
    row = ALGORITHMS["ppo"]
    samples = assess(policy, episodes, row, config, decide, LearnState(), reference, {})
    found = {id(s.decisions[0]): (s.advantages[0], s.returns[0]) for s in samples}
    return [found[id(e.steps[0].decision)] for e in episodes]


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
    episodes = [e for e in written(policy) if len(e.steps[0].decision.token_ids) == 3]
    assert episodes
    for e in episodes:
        e.steps[0].token_rewards, e.steps[0].reward = [0.0, 1.0, 2.0], 3.0
    options = {"reward_clip": clip, "reward_scale": scale}
    for credit, returns in token_credit(policy, episodes, **options):
        by = kept * scale
        assert credit == pytest.approx([3 * by, 3 * by, 2 * by], abs=1e-6)
        assert returns == pytest.approx(credit, abs=1e-6)


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
    for e, (credit, returns) in zip(episodes, found, strict=True):
        decision = e.steps[0].decision
        taken = [0.5 * (p - q) for p, q in zip(decision.log_probs, decision.reference, strict=True)]
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


def test_token_credit_of_written_text_sums_to_its_turns(policy):
    episodes = rollout(policy, count=8, decide="generate", max_new_tokens=5)
    config = settle(LearnConfig(credit="tokens", normalise="none"))
    decide = DecideConfig(decide="generate", max_new_tokens=5)
    state, metrics = LearnState(), {}
    samples = assess(policy, episodes, ALGORITHMS["ppo"], config, decide, state, None, metrics)
    for sample in samples:
        for decision, credit in zip(sample.decisions, sample.advantages, strict=True):
            assert len(credit) == len(decision.token_ids)
            assert decision.token_values[0] == pytest.approx(decision.value, abs=1e-5)
    before = copy.deepcopy(policy.state_dict())
    metrics = learn(policy, episodes, credit="tokens", decide=decide)
    assert metrics["value_loss"] >= 0
    assert any(not torch.equal(before[name], now) for name, now in policy.state_dict().items())


def test_trpo_lowers_its_loss_within_the_bound_and_fits_the_critic_alone(policy):
    episodes = rollout(policy, count=64)
    metrics = learn(policy, episodes, algorithm="trpo", target_kl=0.01, entropy_coef=0.0)
    assert 0 < metrics["approx_kl"] <= 0.01
    assert metrics["backtracks"] < 10
    again = learn(policy, episodes, algorithm="trpo", target_kl=1e-9, epochs=30)
    assert again["approx_kl"] <= 1e-9
    assert again["value_loss"] < metrics["value_loss"]
    policy.set_precision("bf16")
    with pytest.raises(LangAgentError, match="fp32"):
        learn(policy, episodes, algorithm="trpo")


def test_conjugate_gradients_solve():
    torch.manual_seed(0)
    half = torch.randn(6, 6, dtype=torch.float64)
    matrix, target = half @ half.T + torch.eye(6), torch.randn(6, dtype=torch.float64)
    solution = conjugate_gradients(lambda v: matrix @ v, target, 6)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target))


# -- steps that are not taken -------------------------------------------------------------------


def parameters(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_where_no_group_differs_nothing_moves(policy, algorithm, optimizer, reward):
    episodes = rollout(policy, count=24, group_size=3)
    for e in episodes:
        e.steps[0].reward = reward
    options = {"algorithm": algorithm, "group_size": 3, "entropy_coef": 0.1}
    before = parameters(policy).clone()
    metrics = learn(policy, episodes, LearnState(), optimizer=optimizer, **options)
    assert torch.equal(parameters(policy), before)
    assert metrics["flat_groups"] == 1
    assert metrics["epochs"] == metrics["skipped"] == metrics["grad_norm"] == 0
    episodes[0].steps[0].reward = 2.0
    metrics = learn(policy, episodes, LearnState(), optimizer=optimizer, **options)
    assert not torch.equal(parameters(policy), before)
    assert metrics["flat_groups"] == 7 / 8


def test_a_penalty_in_the_loss_holds_on_where_no_group_differs(policy):
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.model.transformer.ln_f.weight.mul_(2.0)
    episodes = rollout(policy, count=24, group_size=3)
    for e in episodes:
        e.steps[0].reward = 0.0
    options = {"algorithm": "grpo", "group_size": 3, "kl_coef": 0.1}
    before = parameters(policy).clone()
    learn(policy, episodes, LearnState(), Reference(other), **options)
    assert not torch.equal(parameters(policy), before)


def test_target_kl_stops_before_the_step_that_it_is_measured_at(policy):
    episodes = rollout(policy)
    with torch.no_grad():
        policy.model.transformer.ln_f.weight.mul_(3.0)  # no longer the policy that acted
    before = parameters(policy).clone()
    metrics = learn(policy, episodes, target_kl=1e-4)
    assert metrics["approx_kl"] > 1e-4
    assert (metrics["stopped"], metrics["epochs"], metrics["skipped"]) == (1, 0, 0)
    assert torch.equal(parameters(policy), before)
    metrics = learn(policy, episodes, target_kl=1e4)
    assert (metrics["stopped"], metrics["epochs"]) == (0, 3)


def test_the_policy_stays_where_target_kl_was_passed(policy):
    """Two steps are taken; the third minibatch finds the policy too far away and is not learned."""
    episodes = rollout(policy)
    taken = []

    class Recording(Optimizer):
        def step(self):
            super().step()
            taken.append(parameters(policy).clone())

    config = LearnConfig(minibatch_decisions=16, learning_rate=1e-2, target_kl=1e9)
    optimizer, generator = Recording(policy, "adamw", 1e-2, 0.0), torch.Generator().manual_seed(0)
    start = copy.deepcopy(policy.state_dict())
    measured = []
    step = learner.gradient_step
    for bound in (1e9, None):
        policy.load_state_dict(start)
        taken.clear()
        if bound is None:  # between what was measured before the second step and before the third
            assert measured[1] < measured[2]
            config = replace(config, target_kl=(measured[1] + measured[2]) / 2)

        def watch(*args, **kwargs):
            found = step(*args, **kwargs)
            measured.append(found["approx_kl"])
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learner, "gradient_step", watch)
            optimizer = Recording(policy, "adamw", 1e-2, 0.0)
            generator.manual_seed(0)
            metrics = update(policy, optimizer, episodes, config, DecideConfig(), generator)
    assert len(taken) == 2
    assert torch.equal(parameters(policy), taken[-1])
    assert (metrics["stopped"], metrics["epochs"]) == (1, 1)


def test_a_rollout_without_a_label_teaches_nothing_and_ends_nothing(policy):
    agent, seen = PolicyAgent(policy, 1), TextObservation("Goal a\nSee b", ("go", "stay"))
    before = parameters(policy).clone()

    def labelled(choice, seed):
        step = Step(seen, agent.record(0, seen, "go", choice), 0.0, {})
        return Episode(seed, seed, [step], terminated=True)

    unlabelled = [labelled(NO_LABEL, seed) for seed in range(3)]
    metrics = learn(policy, unlabelled, algorithm="imitation", entropy_coef=0.1)
    assert "policy_loss" not in metrics
    assert torch.equal(parameters(policy), before)
    both = [*unlabelled, labelled(1, 3)]
    exact = -policy.action_log_probs([seen.prompt], seen.actions)[0, 1].item()
    metrics = learn(policy, both, algorithm="imitation", epochs=1, value_coef=0.0)
    assert metrics["policy_loss"] == pytest.approx(exact, abs=1e-4)
    assert learn(policy, [], algorithm="ppo") == {}
    assert learn(policy, unlabelled, algorithm="trpo") == {"explained_variance": 0.0}


# -- stability ---------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
def test_steps_that_are_not_finite_are_skipped_and_many_end_the_run(policy, algorithm):
    before = copy.deepcopy(policy.model.state_dict())
    episodes = rollout(policy)
    episodes[3].steps[0].reward = float("nan")
    state = LearnState()
    metrics = learn(policy, episodes, state, algorithm=algorithm, epochs=1)
    assert metrics["skipped"] == state.skipped >= 1
    with pytest.raises(LangAgentError, match="not finite"):  # noqa: PT012
        for _ in range(MAX_SKIPPED):
            learn(policy, episodes, state, algorithm=algorithm, epochs=1)
    assert state.skipped == MAX_SKIPPED
    for name, now in policy.model.state_dict().items():
        assert torch.equal(before[name], now), name
    learn(policy, rollout(policy), state, algorithm=algorithm)
    assert state.skipped == 0


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
    command = [sys.executable, "-m", "lang_agent.cli", "train", "--config", "run.yaml"]
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
    trainer._iterate()
    saved = trainer.save()
    with torch.no_grad():
        trainer.policy.value_head.weight.fill_(float("nan"))
    with pytest.raises(LangAgentError, match="last checkpoint is good"):
        trainer.run()
    assert latest_checkpoint(tmp_path / "run") == saved
    assert torch.isfinite(resume(tmp_path / "run").policy.value_head.weight).all()
