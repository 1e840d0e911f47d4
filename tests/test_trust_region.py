"""TRPO: its divergence and Fisher matrix against plain sums over phrases, and what it accepts."""

from __future__ import annotations

import copy

import pytest
import torch
from learn_bandit import learn, new_policy, parameters, rollout

from lang_agent import LangAgentError
from lang_agent.learn import trust_region
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.objective import evaluate_actions
from lang_agent.learn.sequences import collate, to_samples
from lang_agent.learn.trust_region import _fisher, conjugate_gradients, divergence, log_policy
from lang_agent.models.decide import DecideConfig

PHRASES = DecideConfig()


@pytest.fixture
def policy():
    return new_policy()


def batch_of(policy, episodes, decide=PHRASES):
    nothing = [[[0.0]] * len(e.steps) for e in episodes]
    samples = to_samples(policy, episodes, nothing, nothing, decide.decide)
    return samples, collate(samples, policy.device)


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


def test_the_divergence_is_the_whole_sum_over_the_phrases(policy):
    _, batch = batch_of(policy, rollout(policy, count=8))
    with torch.no_grad():
        old = log_policy(evaluate_actions(policy, batch, PHRASES))
        policy.model.transformer.ln_f.weight.mul_(3.0)
        new = log_policy(evaluate_actions(policy, batch, PHRASES))
    assert old.shape == (8, 2)
    by_hand = 0.0
    for p, q in zip(old.tolist(), new.tolist(), strict=True):
        by_hand += sum(torch.tensor(a).exp().item() * (a - b) for a, b in zip(p, q, strict=True))
    found = divergence(old, new, batch, 1.0).item()
    assert found == pytest.approx(by_hand, abs=1e-5)
    assert found > 0.001


def test_a_phrase_that_is_padded_adds_nothing_and_its_gradient_is_finite():
    class Phrases:
        written = torch.zeros(2, 0)

    old = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]).log()
    scores = torch.tensor([[0.1, 0.4, -torch.inf], [0.0, 0.2, 0.4]], requires_grad=True)
    far = divergence(old, scores.log_softmax(1), Phrases, 1.0)
    far.backward()
    assert torch.isfinite(far)
    assert torch.isfinite(scores.grad[0, :2]).all()


@pytest.mark.parametrize("way", ["sum", "constrained"])
def test_fisher_products_by_hand(policy, way):
    """v F v is the mean over states of sum_a p(a) (v grad log p(a))^2."""
    decide = DecideConfig(way)
    samples, batch = batch_of(policy, rollout(policy, count=4, decide=way), decide)
    inner = [p for p in policy.model.parameters() if p.requires_grad]
    times = _fisher(policy, inner, samples, LearnConfig("trpo"), decide)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(sum(p.numel() for p in inner), generator=generator)
    scores = log_policy(evaluate_actions(policy, batch, decide))
    by_hand = 0.0
    for row in scores:
        for score in row:
            grads = torch.autograd.grad(score, inner, retain_graph=True, allow_unused=True)
            along = sum(
                (
                    g.flatten() @ part
                    for g, part in zip(grads, v.split([p.numel() for p in inner]), strict=True)
                    if g is not None
                )
            )
            by_hand += (score.exp() * along**2).item() / len(scores)
    assert (v @ times(v)).item() == pytest.approx(by_hand, rel=1e-3)


def test_a_step_must_bring_its_part_of_what_the_gradient_promises(policy, monkeypatch):
    episodes = rollout(policy, count=64)
    options = {"algorithm": "trpo", "target_kl": 0.01, "entropy_coef": 0.0, "epochs": 1}
    before = [p.clone() for p in policy.model.parameters()]
    monkeypatch.setattr(trust_region, "ACCEPTED", 1.5)  # more than a straight line
    metrics = learn(policy, episodes, **options)
    assert (metrics["backtracks"], metrics["approx_kl"]) == (10, 0)
    assert all(map(torch.equal, before, policy.model.parameters()))
    monkeypatch.undo()
    metrics = learn(policy, episodes, **options)
    assert metrics["backtracks"] < 10
    assert not all(map(torch.equal, before, policy.model.parameters()))


def test_the_step_is_the_same_where_activations_are_recomputed(policy):
    episodes, found = rollout(policy), []
    for recompute in (False, True):
        other = copy.deepcopy(policy)
        if recompute:
            other.model.gradient_checkpointing_enable({"use_reentrant": False})
        metrics = learn(other, copy.deepcopy(episodes), algorithm="trpo", epochs=1,
                        recompute_activations=recompute)  # fmt: skip
        assert metrics["backtracks"] < 10
        found.append(parameters(other))
        assert not other.model.training
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-3)


def test_written_text_keeps_within_the_bound_too(policy):
    decide = DecideConfig("generate", max_new_tokens=4)
    episodes = rollout(policy, decide="generate", max_new_tokens=4)
    for at, e in enumerate(episodes):
        e.steps[0].reward = float(at % 2)
    metrics = learn(policy, episodes, algorithm="trpo", target_kl=0.01, decide=decide)
    assert 0 < metrics["approx_kl"] <= 0.01


def test_conjugate_gradients_solve():
    torch.manual_seed(0)
    half = torch.randn(6, 6, dtype=torch.float64)
    matrix, target = half @ half.T + torch.eye(6), torch.randn(6, dtype=torch.float64)
    solution = conjugate_gradients(lambda v: matrix @ v, target, 6)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target))
