"""Learning from episodes: credit, minibatches, gradient steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lang_agent import losses
from lang_agent.algorithms import ALGORITHMS, Algorithm
from lang_agent.batches import Batch, Sample, by_length, collate, minibatches, to_samples
from lang_agent.config import DecideConfig, LearnConfig
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy, States
from lang_agent.rollout import Episode


def update(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    episodes: Sequence[Episode],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """Learn from episodes in which the policy decided as ``decide`` says; returns the means of
    what was measured over the decisions."""
    algorithm = ALGORITHMS[config.algorithm]
    credit, returns = algorithm.credit(episodes, config)
    samples = to_samples(policy, episodes, standardise(credit), returns, decide.decide)
    policy.model.train(config.recompute_activations)  # dropout is 0: only checkpointing asks for it
    totals: dict[str, float] = {}
    seen = 0
    epochs = 1 if algorithm.one_epoch else config.epochs
    for epoch in range(epochs):
        for minibatch in minibatches(samples, config.minibatch_decisions, generator):
            metrics = gradient_step(policy, optimizer, algorithm, minibatch, config, decide)
            count = sum(len(sample.columns) for sample in minibatch)
            seen += count
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value * count
            if config.target_kl is not None and metrics.get("approx_kl", 0.0) > config.target_kl:
                means = {name: total / seen for name, total in totals.items()}
                return {**means, "epochs": epoch + seen / len(samples) % 1, "stopped": 1.0}
    policy.model.eval()
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
    decide: DecideConfig,
) -> dict[str, float]:
    """One optimizer step on a minibatch, accumulated over batches of at most ``batch_tokens``."""
    decisions = sum(len(sample.columns) for sample in minibatch)
    tokens = sum(len(entries) for sample in minibatch for entries in sample.log_probs)
    optimizer.zero_grad()
    sums: dict[str, Tensor] = {}
    for part in by_length(minibatch, config.batch_tokens):
        batch = collate(part, policy.device)
        loss, metrics = total_loss(policy, algorithm, batch, config, decide, decisions / tokens)
        (loss / decisions).backward()
        for name, value in metrics.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    optimizer.step()
    return {name: (value / decisions).item() for name, value in sums.items()} | {
        "grad_norm": norm.item()
    }


def total_loss(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    batch: Batch,
    config: LearnConfig,
    decide: DecideConfig,
    token_weight: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss summed over a batch's decisions, and what is watched, summed likewise.

    A decision of several tokens has a policy loss for each. They are averaged over all tokens of
    the minibatch (Yu et al. 2025, DAPO, arXiv 2503.14476, sec. 3.3): ``token_weight`` is its number
    of decisions over its number of tokens.
    """
    states = policy.hidden_states(batch.layout)
    log_probs, entropy = decision_log_probs(policy, states, batch, decide.temperature)
    weight = batch.mask * token_weight  # (D, L)
    policy_loss = (algorithm.policy_loss(log_probs, batch, config) * weight).sum(1)  # (D,)
    loss = policy_loss - config.entropy_coef * entropy
    metrics = {"policy_loss": policy_loss.sum(), "entropy": entropy.sum()}
    if not algorithm.imitates:
        log_ratio = (log_probs - batch.log_probs).detach()
        ratio = log_ratio.exp()
        clipped = (ratio > 1 + config.clip_high) | (ratio < 1 - config.clip_low)
        metrics["approx_kl"] = (losses.k3(log_ratio) * weight).sum()
        metrics["clip_fraction"] = (clipped * weight).sum()
    if algorithm.has_critic:
        value_loss = losses.squared_error(policy.values(states, batch.layout), batch.returns)
        loss = loss + config.value_coef * value_loss
        metrics["value_loss"] = value_loss.sum()
    return loss.sum(), metrics


def decision_log_probs(
    policy: LanguagePolicy, states: States, batch: Batch, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (D, L) of the tokens that decisions were made of, 0 where padded, and each
    decision's entropy (D,): over the phrases, or the mean over the free text's tokens."""
    layout = batch.layout
    if not batch.written.shape[1]:
        scores = policy.scores(states, layout, batch.trees, temperature)
        return scores.of(batch.choices)[0], losses.entropy(scores.log_policy)
    row, token = batch.mask.nonzero(as_tuple=True)  # (N,)
    columns = layout.decision_column[row] + token
    logits = policy.token_logits(states.last[layout.decision_row[row], columns])  # (N, V)
    log_vocabulary = torch.log_softmax(logits / temperature, dim=-1)
    chosen = log_vocabulary.gather(1, batch.written[batch.mask][:, None]).squeeze(1)
    log_probs = torch.zeros_like(batch.log_probs).masked_scatter(batch.mask, chosen)
    per_token = losses.entropy(log_vocabulary) / batch.mask.sum(1)[row]
    entropy = torch.zeros_like(batch.values).index_add(0, row, per_token)
    return log_probs, entropy
