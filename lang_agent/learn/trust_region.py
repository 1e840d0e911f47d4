"""TRPO: the step that lowers the surrogate most within a bound on the KL divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lang_agent.errors import LangAgentError
from lang_agent.learn import losses
from lang_agent.learn.algorithm import Algorithm
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.objective import ActionEvaluation, evaluate_actions, policy_part
from lang_agent.learn.sequences import (
    Batch,
    Sample,
    by_length,
    collate,
    decisions_of,
    share_prompts,
    tokens_weight,
)
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy

ITERATIONS = 10  # of conjugate gradients
DAMPING = 0.1
BACKTRACKS = 10
ACCEPTED = 0.1  # of the improvement that the gradient promises


def trust_region_step(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
    workers: Workers = ALONE,
) -> dict[str, float] | None:
    """One natural-gradient step on all samples (Schulman et al. 2015, arXiv 1502.05477, app. C).

    The direction solves F x = g by conjugate gradients; F, the Fisher matrix, is the second
    derivative of the divergence from the policy that acted, on ``fisher_fraction`` of the
    decisions. Its length makes the quadratic model of the divergence ``target_kl``; it is halved
    until the real one is within that bound and the loss has fallen by at least ``ACCEPTED`` of what
    the gradient promises for a step so long (as in Schulman's own code, modular_rl). Returns what
    was measured, or None (and moves nothing) where something is not finite.
    """
    assert config.target_kl is not None
    if policy.precision != torch.float32:
        raise LangAgentError("trpo's second derivatives need --precision fp32.")
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    decisions = decisions_of(samples)

    weight = tokens_weight(samples)

    def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        now = evaluate_actions(policy, batch, decide, learn_entropy=config.entropy_coef != 0)
        loss, metrics = policy_part(algorithm, now, batch, config, decide, weight)
        means = {name: value / decisions for name, value in metrics.items()}
        return loss / decisions, means, log_policy(now)

    size = sum(parameter.numel() for parameter in parameters)
    before, gradient = 0.0, torch.zeros(size, device=policy.device)
    measured: dict[str, float] = {}
    batches = list(_batches(policy, workers.share(share_prompts(samples)), config))
    acted: list[Tensor] = []  # the policy that acted, for each batch
    for batch in batches:
        loss, metrics, old = loss_of(batch)
        before += loss.item()
        acted.append(old.detach())
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradient = gradient + _flat(grads, parameters)
        for name in ("policy_loss", "entropy"):
            measured[name] = measured.get(name, 0.0) + metrics[name].item()
    workers.sum(gradient)
    measured = workers.sum_numbers(measured)
    norm = float(gradient.norm())
    if not torch.isfinite(gradient).all():
        return None
    part = _subsample(samples, config.fisher_fraction, generator)
    fisher = _fisher(policy, parameters, part, config, decide, workers)
    direction = conjugate_gradients(lambda v: fisher(v) + DAMPING * v, -gradient, ITERATIONS)
    curvature = float(direction @ (fisher(direction) + DAMPING * direction))
    if not curvature > 0:
        return None
    step = direction * (2 * config.target_kl / curvature) ** 0.5
    promised = -float(gradient @ step)
    start = torch.cat([p.detach().flatten() for p in parameters])
    for tried in range(BACKTRACKS):
        _write(parameters, start + step * 0.5**tried)
        after, far = 0.0, 0.0
        with torch.no_grad():
            for batch, old in zip(batches, acted, strict=True):
                loss, _, new = loss_of(batch)
                after += loss.item()
                far += divergence(old, new, batch, weight).item() / decisions
        change = workers.sum_numbers({"fallen": before - after, "far": far})
        fallen, far = change["fallen"], change["far"]
        if fallen >= ACCEPTED * promised * 0.5**tried and far <= config.target_kl:
            break
    else:
        _write(parameters, start)
        far, tried = 0.0, BACKTRACKS
    return {**measured, "grad_norm": norm, "approx_kl": far, "backtracks": float(tried)}


def log_policy(now: ActionEvaluation) -> Tensor:
    """(D, A) log-probabilities of every admissible phrase of each decision; of generated text
    (D, L), of the tokens that were drawn."""
    return now.log_probs if now.log_policy is None else now.log_policy


def divergence(old: Tensor, new: Tensor, batch: Batch, token_weight: float) -> Tensor:
    """KL(old | new), summed over a batch's decisions: exact over the phrases of each; of generated
    text, whose distribution is too large, k3 at the tokens drawn, each by ``token_weight``."""
    if batch.written.shape[1]:
        return (losses.k3(new - old) * batch.mask).sum() * token_weight
    probs = old.exp()
    return (probs * (old - new).masked_fill(probs == 0, 0.0)).sum()


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> Tensor:
    """x with ``product(x)`` = ``target`` (N,), nearly; ``product`` multiplies by a symmetric
    positive matrix (Hestenes and Stiefel 1952)."""
    solution, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), residual @ residual
    for _ in range(iterations):
        if size < 1e-12:
            break
        image = product(direction)
        rate = size / (direction @ image)
        solution = solution + rate * direction
        residual = residual - rate * image
        direction, size = residual + (residual @ residual / size) * direction, residual @ residual
    return solution


def _fisher(
    policy: LanguagePolicy,
    parameters: Sequence[Tensor],
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    workers: Workers = ALONE,
) -> Callable[[Tensor], Tensor]:
    """Multiplies by the Fisher matrix of the decisions in ``samples``; graphs are built once."""
    graphs, weight, decisions = [], tokens_weight(samples), decisions_of(samples)
    # Activations are kept also with recompute_activations: their recomputation would have to be
    # differentiated once more. The fused attention has no second derivative.
    training = policy.model.training
    policy.model.eval()
    with sdpa_kernel(SDPBackend.MATH):
        for batch in _batches(policy, workers.share(share_prompts(samples)), config):
            new = log_policy(evaluate_actions(policy, batch, decide, learn_entropy=False))
            far = divergence(new.detach(), new, batch, weight) / decisions
            first = torch.autograd.grad(far, parameters, create_graph=True, allow_unused=True)
            graphs.append(_flat(first, parameters))
    policy.model.train(training)

    def times(vector: Tensor) -> Tensor:
        product = torch.zeros_like(vector)
        for first in graphs:
            grads = torch.autograd.grad(
                first @ vector, parameters, retain_graph=True, allow_unused=True
            )
            product += _flat(grads, parameters)
        return workers.sum(product)

    return times


def _flat(grads: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector; parameters that nothing depends on have gradient 0."""
    pairs = zip(grads, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def _batches(
    policy: LanguagePolicy, samples: Sequence[Sample], config: LearnConfig
) -> Iterator[Batch]:
    for part in by_length(samples, config.batch_tokens):
        yield collate(part, policy.device)


def _subsample(
    samples: Sequence[Sample], fraction: float, generator: torch.Generator
) -> list[Sample]:
    """Random samples with at least this fraction of the decisions."""
    wanted = fraction * decisions_of(samples)
    chosen: list[Sample] = []
    count = 0
    for index in torch.randperm(len(samples), generator=generator).tolist():
        if count >= wanted:
            break
        chosen.append(samples[index])
        count += len(samples[index].columns)
    return chosen


@torch.no_grad()
def _write(parameters: Sequence[Tensor], flat: Tensor) -> None:
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.copy_(part.view_as(parameter))
