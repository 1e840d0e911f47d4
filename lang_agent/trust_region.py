"""TRPO: the step that lowers the surrogate most within a bound on the KL divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lang_agent import losses
from lang_agent.algorithms import Algorithm
from lang_agent.batches import Batch, Sample, by_length, collate, decisions_of, tokens_weight
from lang_agent.config import DecideConfig, LearnConfig
from lang_agent.errors import LangAgentError
from lang_agent.objective import decision_log_probs, policy_part
from lang_agent.policy import LanguagePolicy

ITERATIONS = 10  # of conjugate gradients
DAMPING = 0.1
BACKTRACKS = 10


def trust_region_step(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
) -> dict[str, float] | None:
    """One natural-gradient step on all samples (Schulman et al. 2015, arXiv 1502.05477, app. C).

    The direction solves F x = g by conjugate gradients; F, the Fisher matrix, is the second
    derivative of the k3 estimate of the divergence, on ``fisher_fraction`` of the decisions. Its
    length makes the quadratic model of the divergence ``target_kl``; it is halved until the real
    one is within that bound and the loss has fallen. Returns what was measured, or None (and moves
    nothing) where something is not finite.
    """
    assert config.target_kl is not None
    if policy.precision != torch.float32:
        raise LangAgentError("trpo's second derivatives need --precision fp32.")
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    decisions = decisions_of(samples)

    def loss_of(batch: Batch, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        states = policy.hidden_states(batch.layout)
        loss, metrics = policy_part(policy, algorithm, states, batch, config, decide, weight)
        return loss / decisions, {name: value / decisions for name, value in metrics.items()}

    before, gradient = torch.zeros(()), torch.zeros((), device=policy.device)
    measured: dict[str, float] = {}
    for batch, weight in _batches(policy, samples, config):
        loss, metrics = loss_of(batch, weight)
        before = before + loss.detach().cpu()
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradient = gradient + _flat(grads, parameters)
        for name in ("policy_loss", "entropy"):
            measured[name] = measured.get(name, 0.0) + metrics[name].item()
    norm = float(gradient.norm())
    if not torch.isfinite(gradient).all():
        return None
    part = _subsample(samples, config.fisher_fraction, generator)
    fisher = _fisher(policy, parameters, part, config, decide)
    direction = conjugate_gradients(lambda v: fisher(v) + DAMPING * v, -gradient, ITERATIONS)
    curvature = float(direction @ (fisher(direction) + DAMPING * direction))
    if not curvature > 0:
        return None
    step = direction * (2 * config.target_kl / curvature) ** 0.5
    start = torch.cat([p.detach().flatten() for p in parameters])
    for tried in range(BACKTRACKS):
        _write(parameters, start + step * 0.5**tried)
        after, divergence = 0.0, 0.0
        with torch.no_grad():
            for batch, weight in _batches(policy, samples, config):
                loss, metrics = loss_of(batch, weight)
                after += loss.item()
                divergence += metrics["approx_kl"].item()
        if after < before and divergence <= config.target_kl:
            break
    else:
        _write(parameters, start)
        divergence = 0.0
        tried = BACKTRACKS
    return {**measured, "grad_norm": norm, "approx_kl": divergence, "backtracks": float(tried)}


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
) -> Callable[[Tensor], Tensor]:
    """Multiplies by the Fisher matrix of the decisions in ``samples``; graphs are built once."""
    graphs = []
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        for batch, weight in _batches(policy, samples, config):
            states = policy.hidden_states(batch.layout)
            log_probs, _ = decision_log_probs(policy, states, batch, decide, learn_entropy=False)
            divergence = (losses.k3(log_probs - log_probs.detach()) * weight).sum()
            divergence = divergence / decisions_of(samples)
            first = torch.autograd.grad(
                divergence, parameters, create_graph=True, allow_unused=True
            )
            graphs.append(_flat(first, parameters))

    def times(vector: Tensor) -> Tensor:
        product = torch.zeros_like(vector)
        for first in graphs:
            grads = torch.autograd.grad(
                first @ vector, parameters, retain_graph=True, allow_unused=True
            )
            product += _flat(grads, parameters)
        return product

    return times


def _flat(grads: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """One vector; parameters that nothing depends on have gradient 0."""
    pairs = zip(grads, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def _batches(
    policy: LanguagePolicy, samples: Sequence[Sample], config: LearnConfig
) -> Iterator[tuple[Batch, Tensor]]:
    """Batches, and the weights of their tokens (D, L), which sum to the number of decisions."""
    weight = tokens_weight(samples)
    for part in by_length(samples, config.batch_tokens):
        batch = collate(part, policy.device)
        yield batch, batch.mask * weight


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
