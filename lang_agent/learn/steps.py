"""Gradient steps: minibatches, epochs, and TRPO's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lang_agent.errors import LangAgentError
from lang_agent.learn.algorithm import Algorithm, LearnState
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.objective import (
    Measured,
    critic_part,
    critic_values,
    hindsight_loss,
    token_weights,
    total_loss,
)
from lang_agent.learn.sequences import (
    Batch,
    Sample,
    by_length,
    collate,
    deal,
    decisions_of,
    minibatches,
    share_prompts,
    tokens_weight,
)
from lang_agent.learn.trust_region import trust_region_step
from lang_agent.models.sharding import whole

if TYPE_CHECKING:
    from lang_agent.learn.learner import Learner

MAX_SKIPPED = 10  # steps in a row that may come out not finite


def epochs_step(
    learner: Learner, samples: Sequence[Sample], relabelled: Sequence[Sample]
) -> dict[str, float]:
    """Minibatches of all samples, and with each its share of those relabelled, several times; ends
    early past ``target_kl``. Where the loss is right only for the policy that acted, one step on
    all samples together: after it the policy is another."""
    if not samples and not relabelled:
        return {}
    algorithm, config, generator = learner.algorithm, learner.config, learner.generator
    sums: dict[str, float] = {}
    weights: dict[str, int] = {}  # where little is relabelled, some minibatches have none of it
    counts = {"skipped": 0.0, "stopped": 0.0}
    learned = 0
    for _ in range(1 if algorithm.one_epoch else config.epochs):
        parts = [list(samples)]
        if samples and not algorithm.one_epoch:
            parts = list(minibatches(samples, config.minibatch_decisions, generator))
        shares = deal(relabelled, len(parts), generator)
        for minibatch, share in zip(parts, shares, strict=True):
            measured = gradient_step(learner, minibatch, share)
            _count(measured, learner.state, counts)
            if not measured:
                continue
            counts["stopped"] = measured.pop("stopped")
            count = decisions_of(minibatch) or decisions_of(share)
            for name, value in measured.items():
                sums[name] = sums.get(name, 0.0) + value * count
                weights[name] = weights.get(name, 0) + count
            if counts["stopped"]:
                break
            learned += count
        if counts["stopped"]:
            break
    if relabelled:
        counts["hindsight_decisions"] = decisions_of(relabelled)
    means = {name: value / weights[name] for name, value in sums.items()}
    epochs = learned / (decisions_of(samples) or decisions_of(relabelled))
    return {"grad_norm": 0.0, **means, **counts, "epochs": epochs}


def natural_step(
    learner: Learner, samples: Sequence[Sample], relabelled: Sequence[Sample]
) -> dict[str, float]:
    """One step of the policy within its bound, then the critic by itself."""
    if not samples:
        return {}
    counts: dict[str, float] = {}
    step = trust_region_step(
        learner.policy,
        learner.algorithm,
        samples,
        learner.config,
        learner.decide,
        learner.generator,
        learner.workers,
    )
    _count(step, learner.state, counts)
    if step is None:
        return counts
    return {**counts, **step, **_fit_critic(learner, samples)}


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
    learner: Learner, minibatch: Sequence[Sample], relabelled: Sequence[Sample] = ()
) -> dict[str, float] | None:
    """One optimizer step on a minibatch and on relabelled samples, each of whose decisions weighs
    ``hindsight_coef`` times one of the minibatch's.

    Returns what was measured; ``stopped`` is 1 where the policy is further from the one that acted
    than ``target_kl``, and then nothing has moved. Nothing has moved either where the loss or the
    gradient is not finite, for which None is returned, or where there is nothing to learn, for
    which nothing is measured.
    """
    policy, optimizer, config = learner.policy, learner.optimizer, learner.config
    algorithm, decide = learner.algorithm, learner.decide
    if not relabelled and not _teaches(algorithm, minibatch, config):
        return {}
    optimizer.zero_grad()
    decisions = decisions_of(minibatch) or decisions_of(relabelled)
    loss = partial(
        total_loss,
        policy,
        algorithm,
        config=config,
        decide=decide,
        token_weight=tokens_weight(minibatch),
    )
    measured = _backward(learner, minibatch, loss, decisions)
    if relabelled:
        hindsight = partial(hindsight_loss, policy, algorithm, config=config, decide=decide)
        measured |= _backward(learner, relabelled, hindsight, decisions)
    learner.workers.sum_gradients(policy.parameters())
    norm = whole(nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm))
    if not torch.isfinite(norm) or not all(map(math.isfinite, measured.values())):
        optimizer.zero_grad()
        return None
    bound = config.target_kl if "target_kl" in algorithm.uses else None
    if bound is not None and measured.get("approx_kl", 0.0) > bound:
        optimizer.zero_grad()
        return measured | {"stopped": 1.0}
    optimizer.step(learner.workers)
    return measured | {"grad_norm": norm.item(), "stopped": 0.0}


def _teaches(algorithm: Algorithm, minibatch: Sequence[Sample], config: LearnConfig) -> bool:
    """Whether anything but the entropy bonus would move the policy. Alone it must not: optimizers
    that divide a gradient's size out make as long a step of it as of any other."""
    if (
        algorithm.imitates
        or algorithm.learns_values(config)
        or (config.kl_coef and config.kl_in == "loss")
    ):
        return True
    return any(a != 0 for sample in minibatch for entries in sample.advantages for a in entries)


def _backward(
    learner: Learner,
    samples: Sequence[Sample],
    loss_of: Callable[[Batch], tuple[Tensor, Measured]],
    divisor: int,
) -> dict[str, float]:
    """Add the gradient of the summed loss of this worker's share of the samples over ``divisor``,
    accumulated over batches of at most ``batch_tokens``; returns what was measured of all samples,
    by decision."""
    sums: dict[str, Tensor] = {}
    for part, counts in learner.workers.batches(samples, learner.config.batch_tokens):
        loss, metrics = loss_of(collate(part, learner.policy.device))
        (loss / divisor if counts else loss * 0).backward()
        if not counts:
            continue
        for name, value in metrics.items():
            sums[name] = sums.get(name, torch.zeros(())) + value.detach().cpu()
    decisions = decisions_of(samples)
    means = {name: (value / decisions).item() for name, value in sums.items()}
    return learner.workers.sum_numbers(means)


def _fit_critic(learner: Learner, samples: Sequence[Sample]) -> dict[str, float]:
    """Learn the value head alone, on hidden states as they are; returns the last epoch's error."""
    policy, optimizer, config = learner.policy, learner.optimizer, learner.config
    error, total = 0.0, decisions_of(samples)
    for _ in range(config.epochs):
        error = 0.0
        for minibatch in minibatches(samples, config.minibatch_decisions, learner.generator):
            decisions = decisions_of(minibatch)
            optimizer.zero_grad()
            mine = learner.workers.share(share_prompts(minibatch))
            for part in by_length(mine, config.batch_tokens):
                batch = collate(part, policy.device)
                with torch.no_grad():
                    whole = batch.returns.shape[1] > 1
                    states = policy.hidden_states(batch.layout, decisions_only=not whole)
                values = critic_values(policy, states, batch)
                weight = token_weights(batch.mask, config, learner.decide, tokens_weight(minibatch))
                loss = critic_part(values, batch, weight)
                (loss / decisions).backward()
                error += loss.item()
            learner.workers.sum_gradients(policy.parameters())
            optimizer.step()
    return learner.workers.sum_numbers({"value_loss": error / total})
