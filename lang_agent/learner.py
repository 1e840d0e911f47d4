"""Learning from episodes: credit, minibatches, gradient steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lang_agent import losses
from lang_agent.algorithms import ALGORITHMS, Algorithm
from lang_agent.batches import Batch, Sample, by_length, collate, minibatches, to_samples
from lang_agent.config import LearnConfig
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy
from lang_agent.rollout import Episode


def update(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    episodes: Sequence[Episode],
    config: LearnConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """Learn from episodes; returns the means of what was measured over the decisions."""
    algorithm = ALGORITHMS[config.algorithm]
    credit, returns = algorithm.credit(episodes, config)
    samples = to_samples(policy, episodes, standardise(credit), returns)
    totals: dict[str, float] = {}
    seen = 0
    epochs = 1 if algorithm.one_epoch else config.epochs
    for epoch in range(epochs):
        for minibatch in minibatches(samples, config.minibatch_decisions, generator):
            metrics = gradient_step(policy, optimizer, algorithm, minibatch, config)
            count = sum(len(sample.columns) for sample in minibatch)
            seen += count
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value * count
            if config.target_kl is not None and metrics["approx_kl"] > config.target_kl:
                means = {name: total / seen for name, total in totals.items()}
                return {**means, "epochs": epoch + seen / len(samples) % 1, "stopped": 1.0}
    means = {name: total / seen for name, total in totals.items()}
    return {**means, "epochs": float(epochs), "stopped": 0.0}


def standardise(credit: Sequence[Sequence[float]]) -> list[list[float]]:
    """Advantages with mean 0 and standard deviation 1 over the whole batch."""
    flat = torch.tensor([a for episode in credit for a in episode])
    mean, scale = flat.mean().item(), flat.std(correction=0).item() + 1e-8
    return [[(a - mean) / scale for a in episode] for episode in credit]


def gradient_step(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    algorithm: Algorithm,
    minibatch: Sequence[Sample],
    config: LearnConfig,
) -> dict[str, float]:
    """One optimizer step on a minibatch, accumulated over batches of at most ``batch_tokens``."""
    decisions = sum(len(sample.columns) for sample in minibatch)
    optimizer.zero_grad()
    sums: dict[str, Tensor] = {}
    for part in by_length(minibatch, config.batch_tokens):
        loss, metrics = total_loss(policy, algorithm, collate(part, policy.device), config)
        (loss / decisions).backward()
        for name, value in metrics.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    optimizer.step()
    return {name: (value / decisions).item() for name, value in sums.items()} | {
        "grad_norm": norm.item()
    }


def total_loss(
    policy: LanguagePolicy, algorithm: Algorithm, batch: Batch, config: LearnConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss summed over a batch's decisions, and what is watched, summed likewise."""
    hidden = policy.hidden_states(batch.layout)
    log_policy = policy.log_policy(hidden, batch.layout, batch.trees)  # (D, A)
    log_probs = log_policy.gather(1, batch.choices[:, None]).squeeze(1)  # (D,)
    policy_loss = algorithm.policy_loss(log_probs, batch, config)
    entropy = losses.entropy(log_policy)
    loss = policy_loss - config.entropy_coef * entropy
    log_ratio = log_probs - batch.log_probs
    metrics = {
        "policy_loss": policy_loss.sum(),
        "entropy": entropy.sum(),
        "approx_kl": losses.k3(log_ratio.detach()).sum(),
        "clip_fraction": (
            (log_ratio.exp() > 1 + config.clip_high) | (log_ratio.exp() < 1 - config.clip_low)
        ).sum(),
    }
    if algorithm.has_critic:
        value_loss = losses.squared_error(policy.values(hidden, batch.layout), batch.returns)
        loss = loss + config.value_coef * value_loss
        metrics["value_loss"] = value_loss.sum()
    return loss.sum(), metrics
