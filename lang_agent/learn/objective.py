"""The loss of a batch of decisions: policy, entropy, reference and critic."""

from __future__ import annotations

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


def total_loss(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    batch: Batch,
    config: LearnConfig,
    decide: DecideConfig,
    token_weight: float = 1.0,
) -> tuple[Tensor, Measured]:
    """The loss summed over a batch's decisions, and what is watched, summed likewise.

    A decision of several tokens has a policy loss for each (:func:`token_weights`).

    Args:
        token_weight: the minibatch's number of decisions over its number of tokens.
    """
    states = policy.hidden_states(batch.layout)
    loss, metrics = policy_part(policy, algorithm, states, batch, config, decide, token_weight)
    if algorithm.learns_values(config):
        weight = token_weights(batch.mask, config, decide, token_weight)
        value_loss = critic_part(policy, states, batch, weight)
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
    """The loss of decisions told in hindsight, and what is watched, summed over a batch.

    What was done is learned by likelihood, by as much as it led to more than the critic expects
    there: -log pi(a | s) (R - V(s))+ (self-imitation: Oh et al. 2018, arXiv 1806.05635, eq. 2),
    times ``hindsight_coef``. Departures: their loss of the values (eq. 3) is left out, because it
    would raise V above what the policy reaches, and V is GAE's baseline too; so V has learned only
    the missions that were given, and judges those that are told by what it makes of their words.
    Without a critic V is 0.
    """
    states = policy.hidden_states(batch.layout)
    log_probs, _ = decision_log_probs(policy, states, batch, decide, learn_entropy=False)
    gain = batch.returns[:, 0]
    if algorithm.learns_values(config):
        gain = (gain - policy.values(states, batch.layout).detach()).clamp(min=0)
    told = -(log_probs * batch.mask).sum(1)
    loss = (told * gain).sum()
    measured = {"hindsight_loss": loss, "hindsight_gain": gain.sum()}
    return config.hindsight_coef * loss, measured


def policy_part(
    policy: LanguagePolicy,
    algorithm: Algorithm,
    states: States,
    batch: Batch,
    config: LearnConfig,
    decide: DecideConfig,
    token_weight: float,
) -> tuple[Tensor, Measured]:
    """What moves the policy: its loss, the entropy bonus and the KL penalty."""
    weight = token_weights(batch.mask, config, decide, token_weight)
    bonus = config.entropy_coef != 0
    log_probs, entropy = decision_log_probs(policy, states, batch, decide, learn_entropy=bonus)
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


def critic_part(policy: LanguagePolicy, states: States, batch: Batch, weight: Tensor) -> Tensor:
    """The squared error of the values, of decisions or of their tokens, summed."""
    if batch.returns.shape[1] == 1:
        values = policy.values(states, batch.layout)[:, None]
        return losses.squared_error(values, batch.returns).sum()
    return (losses.squared_error(token_values(policy, states, batch), batch.returns) * weight).sum()


def token_values(policy: LanguagePolicy, states: States, batch: Batch) -> Tensor:
    """(D, L) the value before each token of each decision; anything where padded."""
    before = states.for_value[batch.layout.decision_row[:, None], batch.written_after]
    return policy.value_head(before).squeeze(-1)


def decision_log_probs(
    policy: LanguagePolicy,
    states: States,
    batch: Batch,
    decide: DecideConfig,
    learn_entropy: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (D, L) of the tokens that decisions were made of, 0 where padded, and each
    decision's entropy (D,): over the phrases, or the mean over the free text's tokens. Without
    ``learn_entropy`` gradients flow to the former alone, which over a vocabulary is much less."""
    layout = batch.layout
    if not batch.written.shape[1]:
        scores = policy.scores(states, layout, batch.tries, decide.temperature)
        chosen = scores.of(batch.choices)[0][:, : batch.mask.shape[1]]  # no longer one was chosen
        return chosen, losses.entropy(scores.log_policy)
    row, token = batch.mask.nonzero(as_tuple=True)  # (N,)
    columns = batch.written_after[row, token]
    logits = policy.token_logits(states.last[layout.decision_row[row], columns])  # (N, V)
    written = batch.written[batch.mask]
    log_vocabulary = token_log_probs(logits, decide, written)
    chosen = log_vocabulary.gather(1, written[:, None]).squeeze(1)
    log_probs = torch.zeros_like(batch.log_probs).masked_scatter(batch.mask, chosen)
    measured = log_vocabulary if learn_entropy else log_vocabulary.detach()
    per_token = losses.entropy(measured) / batch.mask.sum(1)[row]
    entropy = torch.zeros_like(batch.values).index_add(0, row, per_token)
    return log_probs, entropy
