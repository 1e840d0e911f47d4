"""From episodes to samples whose decisions, or tokens, have advantages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from lang_agent import advantages
from lang_agent.algorithms import Algorithm, LearnState, discounted, uses_critic
from lang_agent.batches import Sample, to_samples
from lang_agent.config import DecideConfig, LearnConfig
from lang_agent.policy import LanguagePolicy
from lang_agent.reference import Reference, read_reference, read_token_values
from lang_agent.rollout import Decision, Episode

TokenCredit = list[list[list[float]]]
"""Per episode and decision: one number, or one a token."""


def assess(
    policy: LanguagePolicy,
    episodes: Sequence[Episode],
    algorithm: Algorithm,
    config: LearnConfig,
    decide: DecideConfig,
    state: LearnState,
    reference: Reference | None,
    metrics: dict[str, float],
) -> list[Sample]:
    """Episodes as samples, with an advantage for every decision or token."""
    rewards = [
        [scaled_reward(step.reward, config) for step in episode.steps] for episode in episodes
    ]
    if reference is not None or config.credit == "tokens":
        blank = [[[0.0]] * len(episode.steps) for episode in episodes]
        samples = to_samples(policy, episodes, blank, blank, decide.decide)
        if config.credit == "tokens":
            read_token_values(policy, samples, config)
        if reference is not None:
            read_reference(policy, reference, samples, config, decide)
            ratios = [[_log_ratio(step.decision) for step in e.steps] for e in episodes]
            metrics["reference_kl"] = sum(map(sum, ratios)) / sum(map(len, ratios))
            metrics["kl_coef"] = config.kl_coef
            if config.kl_in == "reward":
                rewards = [
                    [r - config.kl_coef * ratio for r, ratio in zip(ours, theirs, strict=True)]
                    for ours, theirs in zip(rewards, ratios, strict=True)
                ]
    credit, targets = algorithm.credit(episodes, rewards, config, state)
    if uses_critic(config):
        values = [step.decision.value for episode in episodes for step in episode.steps]
        metrics["explained_variance"] = advantages.explained_variance(values, [*chain(*targets)])
    by_token, token_targets = _by_token(episodes, credit, targets, config)
    scaled = _normalised(by_token, episodes, rewards, config)
    return to_samples(policy, episodes, scaled, token_targets, decide.decide)


def scaled_reward(reward: float, config: LearnConfig) -> float:
    """A reward as it is learned from: scaled, then clipped."""
    scaled = reward * config.reward_scale
    clip = config.reward_clip
    return scaled if clip is None else min(max(scaled, -clip), clip)


def _log_ratio(decision: Decision) -> float:
    """log(pi / reference) of what was decided: at the policy's samples an estimate of their KL."""
    ours, theirs = decision.log_probs, decision.reference
    return sum(p - q for p, q in zip(ours, theirs, strict=True))


def _by_token(
    episodes: Sequence[Episode],
    credit: list[list[float]],
    targets: list[list[float]],
    config: LearnConfig,
) -> tuple[TokenCredit, TokenCredit]:
    """Credit and targets of every token, where tokens have their own."""
    if config.credit != "tokens":
        return [[[a] for a in e] for e in credit], [[[r] for r in e] for e in targets]
    by_token = [
        [
            advantages.token_gae(
                a,
                step.decision.token_values,
                config.token_gae_lambda,
                [config.reward_scale * reward for reward in step.token_rewards],
            )
            for a, step in zip(advantage, episode.steps, strict=True)
        ]
        for advantage, episode in zip(credit, episodes, strict=True)
    ]
    token_targets = [
        [
            [a + v for a, v in zip(entries, step.decision.token_values, strict=True)]
            for entries, step in zip(turns, episode.steps, strict=True)
        ]
        for turns, episode in zip(by_token, episodes, strict=True)
    ]
    return by_token, token_targets


def _normalised(
    credit: TokenCredit,
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
) -> TokenCredit:
    """Advantages scaled over the batch, or by the deviation of their group's returns."""
    if config.normalise == "batch":
        scaled = iter(advantages.standardise([a for e in credit for turn in e for a in turn]))
        return [[[next(scaled) for _ in turn] for turn in episode] for episode in credit]
    if config.normalise == "group":
        groups = [episode.seed for episode in episodes]
        spread = advantages.standard_deviations(discounted(rewards, config), groups)
        return [
            [[a / (spread[group] + advantages.EPSILON) for a in turn] for turn in episode]
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
