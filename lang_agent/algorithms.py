"""The learning algorithms: rows of one table, made of an advantage and a policy loss each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lang_agent import advantages, losses
from lang_agent.batches import Batch
from lang_agent.config import LearnConfig
from lang_agent.rollout import Episode

Credit = tuple[list[list[float]], list[list[float]]]
"""Per episode and decision: (advantages, the returns that a critic learns)."""


@dataclass(frozen=True)
class Algorithm:
    """What tells one policy-gradient method from another."""

    credit: Callable[[Sequence[Episode], LearnConfig], Credit]
    policy_loss: Callable[[Tensor, Batch, LearnConfig], Tensor]
    """(new log-probabilities (D, L), batch, config) -> (D, L) losses"""
    has_critic: bool
    one_epoch: bool
    """True where the loss is right only for the policy that acted."""
    imitates: bool = False
    """Learns what the expert chose, whoever acted."""


def _gae(episodes: Sequence[Episode], config: LearnConfig) -> Credit:
    credit, targets = [], []
    for episode in episodes:
        values = [step.decision.value for step in episode.steps]
        rewards = [step.reward for step in episode.steps]
        advantage = advantages.gae(
            rewards, values, episode.last_value, config.discount, config.gae_lambda
        )
        credit.append(advantage)
        targets.append([a + v for a, v in zip(advantage, values, strict=True)])
    return credit, targets


def _returns(episodes: Sequence[Episode], config: LearnConfig) -> Credit:
    returns = [
        advantages.returns_to_go([step.reward for step in episode.steps], 0.0, config.discount)
        for episode in episodes
    ]
    return returns, returns


def _policy_gradient(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.policy_gradient(log_probs, batch.advantages[:, None])


def _likelihood(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return -log_probs


def _clipped(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.clipped_surrogate(
        log_probs, batch.log_probs, batch.advantages[:, None], config.clip_low, config.clip_high
    )


ALGORITHMS = {
    "reinforce": Algorithm(_returns, _policy_gradient, has_critic=False, one_epoch=True),
    "a2c": Algorithm(_gae, _policy_gradient, has_critic=True, one_epoch=True),
    "ppo": Algorithm(_gae, _clipped, has_critic=True, one_epoch=False),
    "imitation": Algorithm(_returns, _likelihood, has_critic=True, one_epoch=False, imitates=True),
}
