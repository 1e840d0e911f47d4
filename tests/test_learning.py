"""Estimators and losses against numbers worked out by hand; learning on a text bandit."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_bandit

import lang_agent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.evaluation.evaluate import evaluate
from lang_agent.learn import losses
from lang_agent.learn.advantages import gae, returns_to_go, standardise
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.algorithms import ALGORITHMS, resolve
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages
from lang_agent.learn.learner import Learner
from lang_agent.learn.objective import evaluate_actions, total_loss
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import (
    by_length,
    collate,
    decisions_of,
    minibatches,
    share_prompts,
    to_samples,
)
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.rollout import play


def test_gae_by_hand():
    # deltas, last to first: 1 + 0.5*8 - 2 = 3, 0 + 0.5*2 - 4 = -3, 2 + 0.5*4 - 1 = 3
    # advantages: 3, -3 + 0.25*3 = -2.25, 3 + 0.25*-2.25 = 2.4375
    assert gae([2.0, 0.0, 1.0], [1.0, 4.0, 2.0], 8.0, 0.5, 0.5) == [2.4375, -2.25, 3.0]


def test_gae_limits():
    rewards, values = [1.0, 2.0, 3.0], [0.5, -1.0, 2.0]
    one_step = [1 + 0.9 * -1.0 - 0.5, 2 + 0.9 * 2.0 + 1.0, 3 + 0.9 * 7.0 - 2.0]
    assert gae(rewards, values, 7.0, 0.9, 0.0) == pytest.approx(one_step)
    returns = returns_to_go(rewards, 7.0, 0.9)
    monte_carlo = [r - v for r, v in zip(returns, values, strict=True)]
    assert gae(rewards, values, 7.0, 0.9, 1.0) == pytest.approx(monte_carlo)


def test_returns_by_hand():
    assert returns_to_go([1.0, 0.0, 4.0], 8.0, 0.5) == [3.0, 4.0, 8.0]


def test_clipped_surrogate_by_hand():
    old = torch.zeros(4)
    new = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0])
    loss = losses.clipped_surrogate(new, old, advantages, 0.2, 0.3)
    torch.testing.assert_close(loss, torch.tensor([-2.6, 3.0, -1.0, 1.6]))


def test_entropy_and_k3_by_hand():
    log_policy = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log()
    torch.testing.assert_close(losses.entropy(log_policy), torch.tensor([math.log(2), 0.0]))
    torch.testing.assert_close(losses.k3(torch.tensor([0.0, math.log(2)])),
                               torch.tensor([0.0, 1 - math.log(2)]))  # fmt: skip


def test_kl_penalty_by_hand():
    pi, old, reference = (torch.tensor([p]).log() for p in (0.6, 0.5, 0.3))
    torch.testing.assert_close(  # 1/2 - 1 - log(1/2)
        losses.kl_penalty(pi, old, reference, "k3"), torch.tensor([math.log(2) - 0.5])
    )
    torch.testing.assert_close(  # 0.6 / 0.5 * log(2)^2 / 2
        losses.kl_penalty(pi, old, reference, "k2"), torch.tensor([0.6 * math.log(2) ** 2])
    )


def gradient_of(value, logits):
    return torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_which_divergence_each_estimator_follows(moved):
    """Expectations over all five actions of pi_old, against the divergences' own gradients."""
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, dtype=torch.float64).log_softmax(0)
    old = (logits.detach() + moved * torch.randn(5, dtype=torch.float64)).log_softmax(0)

    def expected(estimator):
        pi = logits.log_softmax(0)
        return gradient_of(
            (old.exp() * losses.kl_penalty(pi, old, reference, estimator)).sum(), logits
        )

    pi = logits.log_softmax(0)
    forward = gradient_of((pi.exp() * (pi - reference)).sum(), logits)  # of KL(pi | reference)
    pi = logits.log_softmax(0)
    backward = gradient_of((reference.exp() * (reference - pi)).sum(), logits)
    torch.testing.assert_close(expected("k2"), forward)
    assert not torch.allclose(forward, backward, atol=1e-2)
    assert torch.allclose(expected("k3"), backward) is (moved == 0)  # without a ratio only at first


def test_entropy_has_a_finite_gradient_where_actions_are_padded():
    logits = torch.tensor([[0.3, 0.1, -torch.inf]], requires_grad=True)
    losses.entropy(logits.log_softmax(-1)).sum().backward()
    assert torch.isfinite(logits.grad[:, :2]).all()


def test_policy_gradient_and_squared_error_by_hand():
    torch.testing.assert_close(
        losses.policy_gradient(torch.tensor([-1.0]), torch.tensor([3.0])), torch.tensor([3.0])
    )
    torch.testing.assert_close(
        losses.squared_error(torch.tensor([1.0]), torch.tensor([4.0])), torch.tensor([4.5])
    )


def test_standardise():
    a, b, c = standardise([1.0, 2.0, 6.0])
    assert a + b + c == pytest.approx(0, abs=1e-6)
    assert (a * a + b * b + c * c) / 3 == pytest.approx(1, abs=1e-5)
    assert standardise([1.0, 1.0]) == [0.0, 0.0]


def collect(policy, prompt, episodes=6, **options):
    envs = [lang_agent.make("BabyAI-GoToLocalS5N2-v0", prompt=prompt, **options) for _ in range(3)]
    agent = PolicyAgent(policy, 3, critic=True)
    return sorted(play(agent, envs, range(episodes)), key=lambda episode: episode.index)


def samples_of(policy, episodes, decide=DecideConfig()):  # noqa: B008
    rewards = [[step.reward for step in episode.steps] for episode in episodes]
    credit = ALGORITHMS["ppo"].credit(episodes, rewards, LearnConfig(), LearnState())
    advantages, returns = ([[[number] for number in e] for e in part] for part in credit)
    return to_samples(policy, episodes, advantages, returns, decide.decide)


def test_values_bootstrap_on_truncation_only(policy):
    episodes = collect(policy, "minimal", 8)
    with torch.no_grad():
        policy.value_head.bias.fill_(0.5)
    try:
        episodes = collect(policy, "minimal", 8)
    finally:
        with torch.no_grad():
            policy.value_head.bias.zero_()
    assert {episode.terminated for episode in episodes} == {True, False}
    for episode in episodes:
        assert episode.terminated != episode.truncated
        assert episode.last_value == (0.0 if episode.terminated else pytest.approx(0.5))


@pytest.mark.parametrize(("prompt", "shared"), [("transcript", True), ("minimal", False)])
def test_ratios_are_one_before_the_first_step(policy, prompt, shared):
    episodes = collect(policy, prompt)
    samples = samples_of(policy, episodes)
    steps = sum(len(episode.steps) for episode in episodes)
    assert len(samples) == (len(episodes) if shared else steps)
    batch = collate(samples, policy.device)
    with torch.no_grad():
        _, metrics = total_loss(policy, ALGORITHMS["ppo"], batch, LearnConfig(), DecideConfig())
        now = evaluate_actions(policy, batch, DecideConfig())
    torch.testing.assert_close(now.log_probs, batch.log_probs, atol=1e-4, rtol=0)
    assert metrics["clip_fraction"].item() == 0


@pytest.mark.parametrize("actions", [(), ("turn left", "go forward and then stop", "go forward")])
def test_whole_episodes_give_the_gradients_of_single_decisions(policy, actions):
    names = {a: ("go forward" if "stop" in a else a) for a in actions}
    episodes = collect(policy, "transcript", 3, actions=names or None)
    samples = samples_of(policy, episodes)

    def gradient(parts) -> torch.Tensor:
        policy.zero_grad()
        for part in parts:
            loss, _ = total_loss(policy, ALGORITHMS["ppo"], collate(part, policy.device),
                                 LearnConfig(), DecideConfig())  # fmt: skip
            loss.backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    alone = []
    for sample in samples:
        for at in range(len(sample.columns)):
            one = type(sample)(sample.token_ids[: sample.columns[at] + 1])
            for name in ("columns", "tries", "choices", "written", "log_probs", "reference",
                         "values", "advantages", "returns", "places"):  # fmt: skip
                setattr(one, name, [getattr(sample, name)[at]])
            alone.append([one])
    whole, single = gradient([samples]), gradient(alone)
    count = sum(len(sample.columns) for sample in samples)
    torch.testing.assert_close(whole / count, single / count, atol=1e-5, rtol=1e-3)
    policy.zero_grad(set_to_none=True)


@pytest.mark.parametrize("actions", [(), ("turn left", "go forward and then stop", "go forward")])
def test_choices_after_the_same_prompt_share_it(policy, actions):
    """A prompt that comes again is read once, and the gradients are those of reading each."""
    names = {a: ("go forward" if "stop" in a else a) for a in actions}
    samples = samples_of(policy, collect(policy, "minimal", 9, actions=names or None))
    shared = share_prompts(samples)
    prompts = {tuple(sample.token_ids[: sample.columns[0] + 1]) for sample in samples}
    assert len(prompts) == len(shared) < len(samples)
    assert decisions_of(shared) == decisions_of(samples)
    gradients = []
    for parts in ([shared], [[sample] for sample in samples]):
        policy.zero_grad()
        for part in parts:
            batch = collate(part, policy.device)
            loss, _ = total_loss(policy, ALGORITHMS["ppo"], batch, LearnConfig(), DecideConfig())
            loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters()]))
    policy.zero_grad(set_to_none=True)
    count = len(samples)
    torch.testing.assert_close(gradients[0] / count, gradients[1] / count, atol=1e-5, rtol=1e-3)


def test_minibatches_cover_everything_once_and_respect_their_limits(policy):
    samples = samples_of(policy, collect(policy, "minimal"))
    generator = torch.Generator().manual_seed(0)
    parts = list(minibatches(samples, 20, generator))
    assert sorted(id(s) for part in parts for s in part) == sorted(id(s) for s in samples)
    assert all(len(part) >= 10 for part in parts)
    for part in by_length(samples, 200):
        assert len(part) == 1 or max(len(s.token_ids) for s in part) * len(part) <= 200


@pytest.mark.parametrize(
    ("algorithm", "prompt"),
    [
        *((name, "minimal") for name, row in ALGORITHMS.items() if not row.imitates),
        ("ppo", "transcript"),
    ],
)
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_every_algorithm_learns_the_bandit_in_seconds(algorithm, prompt, seed):
    envs = [make_bandit(prompt=prompt) for _ in range(16)]
    policy = LanguagePolicy.from_scratch("nano", seed=seed, texts=bandit_texts(prompt))
    minibatches = {} if ALGORITHMS[algorithm].one_epoch else {"minibatch_decisions": 64}
    config = LearnConfig(algorithm=algorithm, **minibatches)
    optimizer = Optimizer(policy, "muon", 1e-3, 0.0)
    learner = Learner(policy, config, optimizer=optimizer, seed=seed)
    size = resolve(config).group_size
    for round_ in range(30):
        agent = PolicyAgent(policy, 16)
        seeds = range(64 * round_, 64 * round_ + 64 // size)
        episodes = list(play(agent, envs, seeds, group_size=size))
        learner.update(episodes)
        if sum(episode.success for episode in episodes) == 64:
            break
    (row,) = evaluate(PolicyAgent(policy, 16, DecideConfig(temperature=0)), envs, 100)
    assert row.success > 0.95


@pytest.mark.parametrize("algorithm", ["reinforce", "a2c", "rloo"])
def test_a_loss_without_a_ratio_makes_one_step_a_rollout_on_all_of_its_decisions(algorithm):
    policy = LanguagePolicy.from_scratch("nano", seed=1, texts=bandit_texts("minimal"))
    envs = [make_bandit(prompt="minimal") for _ in range(16)]
    episodes = list(play(PolicyAgent(policy, 16), envs, range(75), group_size=4))
    assert len(episodes) == 300  # more than a minibatch
    taken = []

    class Counting(Optimizer):
        def step(self, *workers) -> None:
            taken.append([p.grad.clone() for p in policy.parameters() if p.grad is not None])
            super().step(*workers)

    config = resolve(LearnConfig(algorithm=algorithm, group_size=4, batch_tokens=500))
    optimizer, row = Counting(policy, "adamw", 1e-3, 0.0), ALGORITHMS[algorithm]
    samples = compute_advantages(
        policy, episodes, row, config, DecideConfig(), LearnState(), None, {}
    )
    loss, _ = total_loss(policy, row, collate(samples, policy.device), config, DecideConfig())
    gradient = torch.autograd.grad(loss / 300, list(policy.parameters()), allow_unused=True)
    wanted = [part for part in gradient if part is not None]
    told = Learner(policy, config, optimizer=optimizer).update(episodes)
    (found,) = taken
    length = min(1.0, 0.5 / torch.cat([part.flatten() for part in wanted]).norm().item())
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other * length, atol=1e-5, rtol=1e-3)
    assert told["epochs"] == 1
    assert told["approx_kl"] == pytest.approx(0, abs=1e-6)


def bandit_texts(prompt):
    from lang_agent.train.vocabulary import sample_texts

    return sample_texts([make_bandit(prompt=prompt)], steps=200)
