"""Learning from episodes: credit, minibatches, gradient steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.learn.advantages import returns_to_go
from lang_agent.learn.algorithms import ALGORITHMS, Algorithm, LearnState, settle, uses_critic
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages, flat_groups, scaled_reward
from lang_agent.learn.objective import (
    Measured,
    critic_part,
    hindsight_loss,
    token_weights,
    total_loss,
)
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.reference import Reference, adapted
from lang_agent.learn.sequences import (
    Batch,
    Sample,
    by_length,
    collate,
    deal,
    decisions_of,
    minibatches,
    to_samples,
    tokens_weight,
)
from lang_agent.learn.trust_region import trust_region_step
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy

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
    ``retold`` episodes (:mod:`lang_agent.learn.hindsight`) have a share in every step. Where no
    decision has anything to learn (none is labelled, or no group's returns differ) nothing moves.
    """
    config, state = settle(config), state or LearnState()
    algorithm = ALGORITHMS[config.algorithm]
    metrics: dict[str, float] = {}
    if episodes and config.group_size != 1:
        flat = flat_groups(episodes, config)
        metrics["flat_groups"] = len(flat) / len({episode.seed for episode in episodes})
        if config.drop_flat_groups:
            episodes = [episode for episode in episodes if episode.seed not in flat]
    configured = config
    if state.kl_coef is not None:
        config = replace(config, kl_coef=state.kl_coef)
    samples: list[Sample] = []
    if episodes:
        samples = compute_advantages(
            policy, episodes, algorithm, config, decide, state, reference, metrics
        )
    policy.model.train(config.recompute_activations)  # dropout is 0: only checkpointing asks for it
    try:
        if algorithm.trust_region:
            metrics |= _trust_region(
                policy, optimizer, algorithm, samples, config, decide, generator, state
            )
        else:
            told = _told(policy, retold, config, decide)
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


def _told(
    policy: LanguagePolicy, episodes: Sequence[Episode], config: LearnConfig, decide: DecideConfig
) -> list[Sample]:
    """What was told in hindsight as samples, whose returns are of rewards scaled and clipped like
    all others."""
    returns = []
    for episode in episodes:
        rewards = [scaled_reward(step.reward, config) for step in episode.steps]
        to_go = returns_to_go(rewards, episode.last_value, config.discount)
        returns.append([[value] for value in to_go])
    return to_samples(policy, episodes, returns, returns, decide.decide)


def _trust_region(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    algorithm: Algorithm,
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
    state: LearnState,
) -> dict[str, float]:
    """One step of the policy within its bound, then the critic by itself."""
    if not samples:
        return {}
    counts: dict[str, float] = {}
    step = trust_region_step(policy, algorithm, samples, config, decide, generator)
    _count(step, state, counts)
    if step is None:
        return counts
    return {**counts, **step, **_fit_critic(policy, optimizer, samples, config, decide, generator)}


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
    if not samples and not told:
        return {}
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}  # a minibatch has nothing told where there is little of it
    counts = {"skipped": 0.0, "stopped": 0.0}
    learned = 0
    for _ in range(1 if algorithm.one_epoch else config.epochs):
        parts = [list(samples)]
        if samples and not algorithm.one_epoch:
            parts = list(minibatches(samples, config.minibatch_decisions, generator))
        lessons = deal(told, len(parts), generator)
        for minibatch, lesson in zip(parts, lessons, strict=True):
            measured = gradient_step(
                policy, optimizer, algorithm, minibatch, config, decide, lesson
            )
            _count(measured, state, counts)
            if not measured:
                continue
            counts["stopped"] = measured.pop("stopped")
            count = decisions_of(minibatch) or decisions_of(lesson)
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value * count
                weights[name] = weights.get(name, 0) + count
            if counts["stopped"]:
                break
            learned += count
        if counts["stopped"]:
            break
    if told:
        counts["hindsight_decisions"] = decisions_of(told)
    means = {name: value / weights[name] for name, value in sums.items()}
    epochs = learned / (decisions_of(samples) or decisions_of(told))
    return {"grad_norm": 0.0, **means, **counts, "epochs": epochs}


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
    """One optimizer step on a minibatch, and on what is told in hindsight: each told decision
    weighs ``hindsight_coef`` times one of the minibatch's.

    Returns what was measured; ``stopped`` is 1 where the policy is further from the one that acted
    than ``target_kl``, and then nothing has moved. Nothing has moved either where the loss or the
    gradient is not finite, for which None is returned, or where there is nothing to learn, for
    which nothing is measured.
    """
    if not told and not _teaches(algorithm, minibatch, config):
        return {}
    optimizer.zero_grad()
    decisions = decisions_of(minibatch) or decisions_of(told)
    loss = partial(
        total_loss,
        policy,
        algorithm,
        config=config,
        decide=decide,
        token_weight=tokens_weight(minibatch),
    )
    measured = _backward(policy, minibatch, config, loss, decisions)
    if told:
        retold = partial(hindsight_loss, policy, config=config, decide=decide)
        measured |= _backward(policy, told, config, retold, decisions)
    norm = nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
    if not torch.isfinite(norm) or not all(map(math.isfinite, measured.values())):
        optimizer.zero_grad()
        return None
    bound = config.target_kl if "target_kl" in algorithm.uses else None
    if bound is not None and measured.get("approx_kl", 0.0) > bound:
        optimizer.zero_grad()
        return measured | {"stopped": 1.0}
    optimizer.step()
    return measured | {"grad_norm": norm.item(), "stopped": 0.0}


def _teaches(algorithm: Algorithm, minibatch: Sequence[Sample], config: LearnConfig) -> bool:
    """Whether anything but the entropy bonus would move the policy. Alone it must not: optimizers
    that divide a gradient's size out make as long a step of it as of any other."""
    if algorithm.imitates or uses_critic(config) or (config.kl_coef and config.kl_in == "loss"):
        return True
    return any(a != 0 for sample in minibatch for entries in sample.advantages for a in entries)


def _backward(
    policy: LanguagePolicy,
    samples: Sequence[Sample],
    config: LearnConfig,
    loss_of: Callable[[Batch], tuple[Tensor, Measured]],
    divisor: int,
) -> dict[str, float]:
    """Add the gradient of the samples' summed loss over ``divisor``, accumulated over batches of at
    most ``batch_tokens``; returns what was measured, by decision."""
    sums: dict[str, Tensor] = {}
    for part in by_length(samples, config.batch_tokens):
        loss, metrics = loss_of(collate(part, policy.device))
        (loss / divisor).backward()
        for name, value in metrics.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
    return {name: (value / decisions_of(samples)).item() for name, value in sums.items()}


def _fit_critic(
    policy: LanguagePolicy,
    optimizer: Optimizer,
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """Learn the value head alone, on hidden states as they are; returns the last epoch's error."""
    error, total = 0.0, decisions_of(samples)
    for _ in range(config.epochs):
        error = 0.0
        for minibatch in minibatches(samples, config.minibatch_decisions, generator):
            decisions = decisions_of(minibatch)
            optimizer.zero_grad()
            for part in by_length(minibatch, config.batch_tokens):
                batch = collate(part, policy.device)
                with torch.no_grad():
                    states = policy.hidden_states(batch.layout)
                weight = token_weights(batch.mask, config, decide, tokens_weight(minibatch))
                loss = critic_part(policy, states, batch, weight)
                (loss / decisions).backward()
                error += loss.item()
            optimizer.step()
    return {"value_loss": error / total}
