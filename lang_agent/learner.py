"""Learning from episodes: credit, minibatches, gradient steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from lang_agent.advantages import returns_to_go
from lang_agent.algorithms import ALGORITHMS, Algorithm, LearnState, settle
from lang_agent.batches import Batch, Sample, by_length, collate, deal, minibatches, to_samples
from lang_agent.config import DecideConfig, LearnConfig
from lang_agent.credit import assess, flat_groups
from lang_agent.errors import LangAgentError
from lang_agent.objective import Measured, critic_part, hindsight_loss, total_loss
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy
from lang_agent.reference import Reference, adapted
from lang_agent.rollout import Episode
from lang_agent.trust_region import trust_region_step

MAX_SKIPPED = 10  # steps in a row that may come out not finite


def update(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    episodes: Sequence[Episode],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
    state: LearnState | None = None,
    reference: Reference | None = None,
    retold: Sequence[Episode] = (),
) -> dict[str, float]:
    """Learn from episodes in which the policy decided as ``decide`` says; returns the means of
    what was measured over the decisions.

    ``state`` remembers what goes on to the next update. A step whose loss or gradient is not finite
    is skipped and counted; after ``MAX_SKIPPED`` in a row :class:`LangAgentError` is raised.
    ``retold`` episodes (:mod:`lang_agent.hindsight`) have a share in every step: the mean loss of
    their decisions is added to that of the others.
    """
    config, state = settle(config), state or LearnState()
    algorithm = ALGORITHMS[config.algorithm]
    metrics: dict[str, float] = {}
    if not episodes:
        return metrics
    if config.group_size != 1:
        flat = flat_groups(episodes, config)
        metrics["flat_groups"] = len(flat) / len({episode.seed for episode in episodes})
        if config.drop_flat_groups:
            episodes = [episode for episode in episodes if episode.seed not in flat]
            if not episodes:
                return metrics
    configured = config
    if state.kl_coef is not None:
        config = replace(config, kl_coef=state.kl_coef)
    samples = assess(policy, episodes, algorithm, config, decide, state, reference, metrics)
    policy.model.train(config.recompute_activations)  # dropout is 0: only checkpointing asks for it
    try:
        if algorithm.trust_region:
            step = trust_region_step(policy, algorithm, samples, config, decide, generator)
            _count(step, state, metrics)
            if step is not None:
                metrics |= step
                metrics |= _fit_critic(policy, optimizer, samples, config, generator)
        else:
            rewards = [[step.reward for step in episode.steps] for episode in retold]
            returns = [[[r] for r in returns_to_go(r, 0.0, config.discount)] for r in rewards]
            told = to_samples(policy, retold, returns, returns, decide.decide)
            if told:
                metrics["hindsight_decisions"] = sum(len(sample.columns) for sample in told)
            metrics |= _epochs(
                policy, optimizer, algorithm, samples, told, config, decide, generator, state
            )
    finally:
        policy.model.eval()
    if "reference_kl" in metrics and config.kl_target is not None:
        decisions = sum(len(episode.steps) for episode in episodes)
        divergence = metrics["reference_kl"]
        state.kl_coef = adapted(config.kl_coef, divergence, decisions, configured)
    return metrics


def _epochs(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    algorithm: Algorithm,
    samples: Sequence[Sample],
    told: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
    state: LearnState,
) -> dict[str, float]:
    """Minibatches of all samples, and with each its share of those told in hindsight, several
    times; ends early past ``target_kl``. Where the loss is right only for the policy that acted,
    one step on all samples together: after it the policy is another."""
    sums: dict[str, float] = {}
    counts = {"skipped": 0.0}
    seen, total = 0, sum(len(sample.columns) for sample in samples)
    epochs = 1 if algorithm.one_epoch else config.epochs
    stopped = 0.0
    for _ in range(epochs):
        parts = [list(samples)]
        if not algorithm.one_epoch:
            parts = list(minibatches(samples, config.minibatch_decisions, generator))
        lessons = deal(told, len(parts), generator)
        for minibatch, lesson in zip(parts, lessons, strict=True):
            measured = gradient_step(
                policy, optimizer, algorithm, minibatch, config, decide, lesson
            )
            _count(measured, state, counts)
            if measured is None:
                continue
            count = sum(len(sample.columns) for sample in minibatch)
            seen += count
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value * count
            kl = measured.get("approx_kl", 0.0)
            if config.target_kl is not None and kl > config.target_kl:
                stopped = 1.0
                break
        if stopped:
            break
    means = {name: value / seen for name, value in sums.items()}
    return {**means, **counts, "epochs": seen / total, "stopped": stopped}


def _count(measured: object, state: LearnState, counts: dict[str, float]) -> None:
    """Count a skipped step; too many in a row end the run."""
    state.skipped = 0 if measured is not None else state.skipped + 1
    counts["skipped"] = counts.get("skipped", 0.0) + (measured is None)
    if state.skipped >= MAX_SKIPPED:
        raise LangAgentError(
            f"{MAX_SKIPPED} gradient steps in a row were not finite: the last checkpoint is good; "
            "go on from it with a lower learning rate."
        )


def gradient_step(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    algorithm: Algorithm,
    minibatch: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    told: Sequence[Sample] = (),
) -> dict[str, float] | None:
    """One optimizer step on a minibatch, and on what is told in hindsight.

    None, and nothing has moved, where the loss or the gradient is not finite.
    """
    optimizer.zero_grad()
    tokens = sum(len(entries) for sample in minibatch for entries in sample.log_probs)
    weight = sum(len(sample.columns) for sample in minibatch) / tokens
    loss = partial(total_loss, policy, algorithm, config=config, decide=decide, token_weight=weight)
    measured = _backward(policy, minibatch, config, loss)
    if told:
        retold = partial(hindsight_loss, policy, config=config, decide=decide)
        measured |= _backward(policy, told, config, retold)
    norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    if not torch.isfinite(norm) or not all(map(math.isfinite, measured.values())):
        optimizer.zero_grad()
        return None
    optimizer.step()
    return measured | {"grad_norm": norm.item()}


def _backward(
    policy: LanguagePolicy,
    minibatch: Sequence[Sample],
    config: LearnConfig,
    loss_of: Callable[[Batch], tuple[Tensor, Measured]],
) -> dict[str, float]:
    """Add the gradient of a minibatch's mean loss, accumulated over batches of at most
    ``batch_tokens``; returns the means of what was measured."""
    decisions = sum(len(sample.columns) for sample in minibatch)
    sums: dict[str, Tensor] = {}
    for part in by_length(minibatch, config.batch_tokens):
        loss, metrics = loss_of(collate(part, policy.device))
        (loss / decisions).backward()
        for name, value in metrics.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
    return {name: (value / decisions).item() for name, value in sums.items()}


def _fit_critic(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    samples: Sequence[Sample],
    config: LearnConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """Learn the value head alone, on hidden states as they are; returns the last epoch's error."""
    error, total = 0.0, sum(len(sample.columns) for sample in samples)
    for _ in range(config.epochs):
        error = 0.0
        for minibatch in minibatches(samples, config.minibatch_decisions, generator):
            decisions = sum(len(sample.columns) for sample in minibatch)
            optimizer.zero_grad()
            for part in by_length(minibatch, config.batch_tokens):
                batch = collate(part, policy.device)
                with torch.no_grad():
                    states = policy.hidden_states(batch.layout)
                loss = critic_part(policy, states, batch, batch.mask.float())
                (loss / decisions).backward()
                error += loss.item()
            optimizer.step()
    return {"value_loss": error / total}
