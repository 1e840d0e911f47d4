"""The learning algorithms: rows of one table, made of an advantage and a policy loss each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lang_agent import advantages, losses
from lang_agent.batches import Batch
from lang_agent.config import LearnConfig
from lang_agent.errors import LangAgentError, unknown
from lang_agent.rollout import Episode


@dataclass
class LearnState:
    """What learning remembers from update to update, beside the optimizer."""

    moving_return: float | None = None
    """The moving baseline of REINFORCE."""
    kl_coef: float | None = None
    """The adaptive KL coefficient, once it has moved."""
    skipped: int = 0
    """Gradient steps skipped in a row, because something was not finite."""


Credit = tuple[list[list[float]], list[list[float]]]
"""Per episode and decision: (advantages, the returns that a critic learns)."""


@dataclass(frozen=True)
class Algorithm:
    """What tells one policy-gradient method from another."""

    credit: Callable[[Sequence[Episode], list[list[float]], LearnConfig, LearnState], Credit]
    """(episodes, their rewards, config, state) -> advantages and returns"""
    policy_loss: Callable[[Tensor, Batch, LearnConfig], Tensor]
    """(new log-probabilities (D, L), batch, config) -> (D, L) losses"""
    critic: bool = False
    one_epoch: bool = False
    """True where the loss is right only for the policy that acted."""
    normalise: str = "batch"
    """How advantages are scaled unless told otherwise."""
    grouped: bool = False
    """Compares episodes of one seed."""
    trust_region: bool = False
    """Steps by conjugate gradients within a bound on the KL divergence."""
    imitates: bool = False
    """Learns what the expert chose, whoever acted."""


def _gae(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    credit, targets = [], []
    for episode, reward in zip(episodes, rewards, strict=True):
        values = [step.decision.value for step in episode.steps]
        advantage = advantages.gae(
            reward, values, episode.last_value, config.discount, config.gae_lambda
        )
        credit.append(advantage)
        targets.append([a + v for a, v in zip(advantage, values, strict=True)])
    return credit, targets


def _returns(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    """Discounted returns, less the baseline that was chosen."""
    returns = [advantages.returns_to_go(reward, 0.0, config.discount) for reward in rewards]
    if config.baseline == "value":
        values = [[step.decision.value for step in episode.steps] for episode in episodes]
        credit = [
            [r - v for r, v in zip(ours, theirs, strict=True)]
            for ours, theirs in zip(returns, values, strict=True)
        ]
        return credit, returns
    if config.baseline == "moving":
        flat = [value for episode in returns for value in episode]
        mean = sum(flat) / len(flat)
        before = mean if state.moving_return is None else state.moving_return
        state.moving_return = before + 0.1 * (mean - before)
        return [[value - before for value in episode] for episode in returns], returns
    return returns, returns


def _group_mean(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    returns, groups = discounted(rewards, config), [episode.seed for episode in episodes]
    return _same_for_all(episodes, advantages.minus_group_mean(returns, groups))


def _leave_one_out(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    returns, groups = discounted(rewards, config), [episode.seed for episode in episodes]
    return _same_for_all(episodes, advantages.leave_one_out(returns, groups))


def discounted(rewards: list[list[float]], config: LearnConfig) -> list[float]:
    """Each episode's discounted return from its beginning."""
    return [advantages.returns_to_go(reward, 0.0, config.discount)[0] for reward in rewards]


def _same_for_all(episodes: Sequence[Episode], credit: Sequence[float]) -> Credit:
    each = [[c] * len(episode.steps) for c, episode in zip(credit, episodes, strict=True)]
    return each, each


def _policy_gradient(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.policy_gradient(log_probs, batch.advantages)


def _surrogate(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.surrogate(log_probs, batch.log_probs, batch.advantages)


def _likelihood(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return -log_probs


def _clipped(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
    return losses.clipped_surrogate(
        log_probs, batch.log_probs, batch.advantages, config.clip_low, config.clip_high
    )


ALGORITHMS = {
    "reinforce": Algorithm(_returns, _policy_gradient, one_epoch=True),
    "a2c": Algorithm(_gae, _policy_gradient, critic=True, one_epoch=True),
    "ppo": Algorithm(_gae, _clipped, critic=True),
    "grpo": Algorithm(_group_mean, _clipped, grouped=True, normalise="group"),
    "rloo": Algorithm(
        _leave_one_out, _policy_gradient, one_epoch=True, grouped=True, normalise="none"
    ),
    "trpo": Algorithm(_gae, _surrogate, critic=True, trust_region=True),
    "imitation": Algorithm(_returns, _likelihood, critic=True, imitates=True),
}


def uses_critic(config: LearnConfig) -> bool:
    """Whether a value head is learned."""
    return ALGORITHMS[config.algorithm].critic or config.baseline == "value"


def settle(config: LearnConfig) -> LearnConfig:
    """The configuration with the algorithm's own choices where none were made.

    Raises :class:`LangAgentError` for an unknown algorithm and for options that it has no use for.
    """
    if config.algorithm not in ALGORITHMS:
        raise unknown("algorithm", config.algorithm, ALGORITHMS)
    row, name = ALGORITHMS[config.algorithm], config.algorithm
    size = config.group_size or (4 if row.grouped else 1)
    normalise = config.normalise or row.normalise
    if row.grouped and size < 2:
        raise LangAgentError(f"{name} compares episodes of one seed: group_size must be 2 or more.")
    if size < 2 and (normalise == "group" or config.drop_flat_groups):
        raise LangAgentError("There are no groups: set group_size to 2 or more.")
    if config.baseline != "none" and name != "reinforce":
        raise LangAgentError(f"baseline={config.baseline} is for reinforce, not {name}.")
    if config.credit == "tokens" and not (row.critic and not row.imitates):
        raise LangAgentError(f"credit=tokens needs a critic, which {name} does not have.")
    if row.trust_region and config.target_kl is None:
        raise LangAgentError("trpo needs a target_kl: it is the bound on its steps.")
    if config.kl_target is not None and not config.kl_coef:
        raise LangAgentError("kl_target moves kl_coef, which must be above 0 to begin with.")
    if row.imitates and config.kl_coef:
        raise LangAgentError("imitation has no use for kl_coef.")
    return replace(config, group_size=size, normalise=normalise)


def at_progress(config: LearnConfig, done: float) -> LearnConfig:
    """The configuration when the part ``done`` of the run lies behind: the entropy bonus moves
    linearly to ``entropy_final``."""
    if config.entropy_final is None:
        return config
    moved = config.entropy_coef + done * (config.entropy_final - config.entropy_coef)
    return replace(config, entropy_coef=moved)
