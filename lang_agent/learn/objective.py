"""The loss of a batch of decisions: policy, entropy, reference and critic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lang_agent.learn import losses
from lang_agent.learn.algorithm import Algorithm
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.sequences import Batch
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy, States
from lang_agent.models.sampling import token_log_probs

Measured = dict[str, Tensor]
CERTAIN = 0.9  # a relabelled decision as probable as this is not made more so


@dataclass(frozen=True)
class ActionEvaluation:
    """What a policy makes, as it is now, of the D decisions of a batch."""

    log_probs: Tensor
    """(D, L) of the tokens that each was made of; 0 where padded. A phrase is one token"""
    entropy: Tensor
    """(D,) over the phrases, or the mean over a written answer's tokens, in nats"""
    values: Tensor
    """(D, 1) the critic's, or (D, L) before each token where tokens have returns of their own"""
    log_policy: Tensor | None
    """(D, A) of every admissible phrase, -inf where a decision has fewer than A; None where answers
    were written, whose distribution is over a vocabulary at each token"""


def evaluate_actions(
    policy: LanguagePolicy, batch: Batch, decide: DecideConfig, *, learn_entropy: bool = True
) -> ActionEvaluation:
    """What the policy makes now of decisions that were made: the one question that every loss asks.

    Args:
        batch: the decisions, of :func:`lang_agent.learn.sequences.collate`.
        decide: how they were made.
        learn_entropy: whether gradients flow through the entropy; over a vocabulary that costs
            much, and a loss without it has no use for them.
    """
    layout = batch.layout
    written = bool(batch.written.shape[1])
    read = layout.filled_up() if policy.compiles_shapes else layout
    states = policy.hidden_states(read, decisions_only=not written)
    log_policy = None
    if written:
        log_probs, entropy = _written_log_probs(policy, states, batch, decide, learn_entropy)
    else:
        scores = policy.scores(states, layout, batch.tries, decide.temperature)
        log_policy = scores.log_policy
        longest = batch.mask.shape[1]  # of the chosen ones
        log_probs = scores.of(batch.choices)[0][:, :longest]
        entropy = losses.entropy(log_policy)
    return ActionEvaluation(log_probs, entropy, critic_values(policy, states, batch), log_policy)


def critic_values(policy: LanguagePolicy, states: States, batch: Batch) -> Tensor:
    """(D, 1) the critic's values of the decisions; (D, L) before each of their tokens, anything
    where padded, where these have returns of their own."""
    if batch.returns.shape[1] == 1:
        return policy.values(states, batch.layout)[:, None]
    return token_values(policy, states, batch)


def token_values(policy: LanguagePolicy, states: States, batch: Batch) -> Tensor:
    """(D, L) the value before each token of each decision; anything where padded."""
    before = states.for_value[batch.layout.decision_row[:, None], batch.written_after]
    return policy.value_head(before).squeeze(-1)


def _written_log_probs(
    policy: LanguagePolicy, states: States, batch: Batch, decide: DecideConfig, learn_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (D, L) of written tokens and the mean entropy (D,) of their vocabulary."""
    row, token = batch.mask.nonzero(as_tuple=True)  # (N,)
    columns = batch.written_after[row, token]
    logits = policy.token_logits(states.last[batch.layout.decision_row[row], columns])  # (N, V)
    written = batch.written[batch.mask]
    log_vocabulary = token_log_probs(logits, decide, written)
    chosen = log_vocabulary.gather(1, written[:, None]).squeeze(1)
    log_probs = torch.zeros_like(batch.log_probs).masked_scatter(batch.mask, chosen)
    measured = log_vocabulary if learn_entropy else log_vocabulary.detach()
    per_token = losses.entropy(measured) / batch.mask.sum(1)[row]
    entropy = torch.zeros_like(batch.values).index_add(0, row, per_token)
    return log_probs, entropy


def total_loss(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    batch: Batch,
    config: LearnConfig,
    decide: DecideConfig,
    token_weight: float = 1.0,
) -> tuple[Tensor, Measured]:
    """The loss summed over a batch's decisions, and what is measured, summed likewise.

    A decision of several tokens has a policy loss for each (:func:`token_weights`).

    Args:
        token_weight: the minibatch's number of decisions over its number of tokens.
    """
    now = evaluate_actions(policy, batch, decide, learn_entropy=config.entropy_coef != 0)
    loss, metrics = policy_part(algorithm, now, batch, config, decide, token_weight)
    if algorithm.learns_values(config):
        weight = token_weights(batch.mask, config, decide, token_weight)
        value_loss = critic_part(now.values, batch, weight)
        loss = loss + config.value_coef * value_loss
        metrics["value_loss"] = value_loss
    return loss, metrics


def token_weights(
    mask: Tensor, config: LearnConfig, decide: DecideConfig, token_weight: float
) -> Tensor:
    """(D, L) what each token's loss counts, where a decision counts 1.

    ``token-mean``     alike for all tokens of the minibatch (DAPO, Yu et al. 2025, arXiv
                       2503.14476, eq. 8)
    ``sequence-mean``  a decision's tokens share its weight: those of a long one count less (GRPO,
                       Shao et al. 2024, arXiv 2402.03300, eq. 3)
    ``constant``       one part of the most tokens that can be written (Dr. GRPO, Liu et al. 2025,
                       arXiv 2503.20783, sec. 3.2)
    """
    if config.loss_aggregation == "sequence-mean":
        return mask / mask.sum(1, keepdim=True)
    if config.loss_aggregation == "constant":
        return mask / decide.max_new_tokens
    return mask * token_weight


def hindsight_loss(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    batch: Batch,
    *,
    config: LearnConfig,
    decide: DecideConfig,
) -> tuple[Tensor, Measured]:
    """The loss of relabelled decisions, and what is measured, summed over a batch.

    What was done is learned by likelihood, by as much as it led to more than the critic expects
    there: -log pi(a | s) (R - V(s))+ (self-imitation: Oh et al. 2018, arXiv 1806.05635, eq. 2),
    times ``hindsight_coef``. Departures: their loss of the values (eq. 3) is left out, because it
    would raise V above what the policy reaches, and V is GAE's baseline too; so V has learned only
    the missions that were given, and estimates those relabelled by what it makes of their words.
    Without a critic V is 0.

    What has a probability of ``CERTAIN`` already is learned no further. Likelihood alone would make
    certain what was done by luck (to pick up the first key in sight), and the policy gradient could
    not take it back: it is as small as the other actions are improbable, and they are never tried.
    """
    now = evaluate_actions(policy, batch, decide, learn_entropy=False)
    gain = batch.returns[:, 0]
    if algorithm.learns_values(config):
        gain = (gain - now.values[:, 0].detach()).clamp(min=0)
    surprise = -(now.log_probs * batch.mask).sum(1)
    uncertain = surprise > -math.log(CERTAIN)
    loss = (surprise * gain * uncertain).sum()
    measured = {"hindsight_loss": loss, "hindsight_gain": gain.sum()}
    return config.hindsight_coef * loss, measured


def policy_part(
    algorithm: Algorithm,
    now: ActionEvaluation,
    batch: Batch,
    config: LearnConfig,
    decide: DecideConfig,
    token_weight: float,
) -> tuple[Tensor, Measured]:
    """What moves the policy: its loss, the entropy bonus and the KL penalty."""
    weight = token_weights(batch.mask, config, decide, token_weight)
    log_probs, entropy = now.log_probs, now.entropy
    assert algorithm.policy_loss is not None  # or the row has a step that asks for none
    policy_loss = (algorithm.policy_loss(log_probs, batch, config) * weight).sum()
    loss = policy_loss - config.entropy_coef * entropy.sum()
    metrics = {"policy_loss": policy_loss, "entropy": entropy.sum()}
    if not algorithm.imitates:
        log_ratio = (log_probs - batch.log_probs).detach()
        each = batch.mask * token_weight  # what is measured is a mean over tokens, always
        metrics["approx_kl"] = (losses.k3(log_ratio) * each).sum()
        if "clip_low" in algorithm.uses:
            ratio = log_ratio.exp()
            clipped = (ratio > 1 + config.clip_high) | (ratio < 1 - config.clip_low)
            metrics["clip_fraction"] = (clipped * each).sum()
    if config.kl_coef and config.kl_in == "loss":
        penalty = losses.kl_penalty(
            log_probs, batch.log_probs, batch.reference, config.kl_estimator
        )
        loss = loss + config.kl_coef * (penalty * weight).sum()
    return loss, metrics


def critic_part(values: Tensor, batch: Batch, weight: Tensor) -> Tensor:
    """The squared error of the values (D, 1) of decisions, or (D, L) of their tokens, summed."""
    errors = losses.squared_error(values, batch.returns)
    return (errors if batch.returns.shape[1] == 1 else errors * weight).sum()
