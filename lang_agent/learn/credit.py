"""From episodes to samples whose decisions, or tokens, have advantages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from lang_agent.episode import Episode, Step
from lang_agent.learn import advantages
from lang_agent.learn.algorithm import Algorithm, LearnState
from lang_agent.learn.algorithms import discounted
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.reference import Reference, read_reference, read_token_values
from lang_agent.learn.sequences import Sample, by_step, to_samples
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy

TokenCredit = list[list[list[float]]]
"""Per episode and decision: one number, or one a token."""


def compute_advantages(
    policy: LanguagePolicy,
    episodes: Sequence[Episode],
    algorithm: Algorithm,
    config: LearnConfig,
    decide: DecideConfig,
    state: LearnState,
    reference: Reference | None,
    metrics: dict[str, float],
    workers: Workers = ALONE,
) -> list[Sample]:
    """Episodes as samples, with an advantage for every decision or token.

    What a KL penalty in the reward (``kl_in=reward``) adds to the advantages joins them after they
    are normalised, and so keeps its size, as a penalty in the loss does: normalised together, where
    rewards hardly differ the penalty's noise would become as large as any advantage. A critic
    learns the returns with the penalty taken off (Ziegler et al. 2019, arXiv 1909.08593, eq. 2).
    """
    token_values, reference_log_probs = _read(policy, episodes, config, decide, reference, workers)
    ratios = _log_ratios(episodes, reference_log_probs)
    if ratios:
        sums = [sum(ratio) for episode in ratios for ratio in episode]
        metrics["reference_kl"] = sum(sums) / len(sums)
        metrics["kl_coef"] = config.kl_coef
    rewards = [[scaled_reward(step.reward, config) for step in e.steps] for e in episodes]
    given = [[_token_rewards(step, config) for step in e.steps] for e in episodes]
    penalised = reference is not None and config.kl_in == "reward"
    aside = replace(state) if penalised else state  # a moving baseline is of what is paid
    own, targets = _credit(algorithm, episodes, rewards, given, token_values, config, aside)
    whole, scaled = own, _normalised(own, episodes, rewards, config)
    if penalised:
        penalties = [[[-config.kl_coef * r for r in ratio] for ratio in e] for e in ratios]
        paid = _each(lambda reward, taken: reward + sum(taken), rewards, penalties)
        given = _each(_added, given, penalties)
        whole, targets = _credit(algorithm, episodes, paid, given, token_values, config, state)
        scaled = _each(_added, scaled, _each(_less, whole, own))
    if algorithm.learns_values(config):
        values = [step.trace.value for episode in episodes for step in episode.steps]
        metrics["explained_variance"] = advantages.explained_variance(values, [*chain(*targets)])
    returns = [[[target] for target in e] for e in targets]
    if config.credit == "tokens":
        returns = _each(_added, whole, token_values)
    return to_samples(
        policy,
        episodes,
        scaled,
        returns,
        decide.decide,
        imitate=algorithm.imitates,
        reference=reference_log_probs,
    )


def _read(
    policy: LanguagePolicy,
    episodes: Sequence[Episode],
    config: LearnConfig,
    decide: DecideConfig,
    reference: Reference | None,
    workers: Workers,
) -> tuple[TokenCredit, TokenCredit]:
    """The critic's value before each token of each decision, where tokens have credit, and the
    reference's log-probabilities of them, where there is one; else nothing."""
    if reference is None and config.credit != "tokens":
        return [], []
    blank = [[[0.0]] * len(episode.steps) for episode in episodes]
    samples = to_samples(policy, episodes, blank, blank, decide.decide)
    batches = [batch for batch, _ in workers.batches(samples, config.batch_tokens)]
    values: TokenCredit = []
    log_probs: TokenCredit = []
    if config.credit == "tokens":
        values = by_step(episodes, workers.merge(read_token_values(policy, batches)))
    if reference is not None:
        found = read_reference(policy, reference, batches, decide)
        log_probs = by_step(episodes, workers.merge(found))
    return values, log_probs


def _log_ratios(episodes: Sequence[Episode], reference_log_probs: TokenCredit) -> TokenCredit:
    """(L,) log(pi / reference) of what was decided: at the policy's samples their sum estimates
    KL(pi | reference)."""
    log_probs = [[step.trace.log_probs for step in episode.steps] for episode in episodes]
    return _each(_less, log_probs, reference_log_probs) if reference_log_probs else []


def scaled_reward(reward: float, config: LearnConfig) -> float:
    """A reward as it is learned from: scaled, then clipped."""
    scaled = reward * config.reward_scale
    clip = config.reward_clip
    return scaled if clip is None else min(max(scaled, -clip), clip)


def _token_rewards(step: Step, config: LearnConfig) -> list[float]:
    """(L,) what a turn's tokens were rewarded apart, scaled; of what is clipped off the turn's
    reward each bears its part. 0 where none was."""
    whole = step.reward * config.reward_scale
    kept = scaled_reward(step.reward, config) / whole if whole else 1.0
    given = step.token_rewards or [0.0] * len(step.trace.log_probs)
    return [reward * config.reward_scale * kept for reward in given]


def _credit(
    algorithm: Algorithm,
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    given: TokenCredit,
    token_values: TokenCredit,
    config: LearnConfig,
    state: LearnState,
) -> tuple[TokenCredit, list[list[float]]]:
    """The advantages of each decision, or of its tokens, and the returns of the decisions."""
    credit, targets = algorithm.credit(episodes, rewards, config, state)
    if config.credit != "tokens":
        return [[[a] for a in episode] for episode in credit], targets
    trace = config.token_gae_lambda
    return _each(
        lambda a, v, r: advantages.token_gae(a, v, trace, r), credit, token_values, given
    ), targets


def _each(function: Callable[..., Any], *episodes: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """``function`` of what belongs to the same step, for every step of every episode."""
    return [
        [function(*step) for step in zip(*same, strict=True)]
        for same in zip(*episodes, strict=True)
    ]


def _added(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _less(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _normalised(
    credit: TokenCredit,
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
) -> TokenCredit:
    """Advantages scaled over the rollout, or by the deviation of their group's returns, of which a
    group whose returns are alike has none: its advantages stay as they are."""
    if config.normalise == "batch":
        scaled = iter(advantages.standardise([a for e in credit for turn in e for a in turn]))
        return [[[next(scaled) for _ in turn] for turn in episode] for episode in credit]
    if config.normalise == "group":
        groups = [episode.seed for episode in episodes]
        spread = advantages.standard_deviations(discounted(rewards, config), groups)
        by = {group: one + advantages.EPSILON if one else 1.0 for group, one in spread.items()}
        return [
            [[a / by[group] for a in turn] for turn in episode]
            for episode, group in zip(credit, groups, strict=True)
        ]
    return credit


def flat_groups(episodes: Sequence[Episode], config: LearnConfig) -> set[int]:
    """The seeds of groups whose episodes all have the same return."""
    returns: dict[int, list[float]] = {}
    for episode in episodes:
        rewards = [scaled_reward(step.reward, config) for step in episode.steps]
        returns.setdefault(episode.seed, []).append(discounted([rewards], config)[0])
    return {seed for seed, group in returns.items() if advantages.alike(group)}
