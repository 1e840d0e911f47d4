"""The learning algorithms: rows of one table, made of an advantage and a policy loss each.

Below each row stand its paper and where it departs from it; docs/algorithms.md has the same as a
table, with the tests that hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError, unknown
from lang_agent.learn import advantages, losses
from lang_agent.learn.algorithm import Algorithm, Credit, LearnState
from lang_agent.learn.config import OPTIMIZERS, LearnConfig
from lang_agent.learn.optimizer import find_optimizer
from lang_agent.learn.own import own_algorithm
from lang_agent.learn.sequences import Batch
from lang_agent.learn.steps import natural_step
from lang_agent.ranges import refuse_unused
from lang_agent.trust import names_from


def gae_credit(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    credit, targets = [], []
    for episode, reward in zip(episodes, rewards, strict=True):
        values = [step.trace.value for step in episode.steps]
        advantage = advantages.gae(
            reward, values, episode.last_value, config.discount, config.gae_lambda
        )
        credit.append(advantage)
        targets.append([a + v for a, v in zip(advantage, values, strict=True)])
    return credit, targets


def return_credit(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    """Discounted returns, less the baseline that was chosen."""
    returns = [advantages.returns_to_go(reward, 0.0, config.discount) for reward in rewards]
    if config.baseline == "value":
        values = [[step.trace.value for step in episode.steps] for episode in episodes]
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


def group_mean_credit(
    episodes: Sequence[Episode],
    rewards: list[list[float]],
    config: LearnConfig,
    state: LearnState,
) -> Credit:
    returns, groups = discounted(rewards, config), [episode.seed for episode in episodes]
    return _same_for_all(episodes, advantages.minus_group_mean(returns, groups))


def leave_one_out_credit(
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


_GRADIENT = {"optimizer", "max_grad_norm"}
_KL = {"kl_coef", "kl_in", "kl_estimator", "kl_target", "kl_horizon"}
_ADVANTAGES = {"normalise", "drop_flat_groups", *_KL}
_HINDSIGHT = {"hindsight_coef"}
_GAE = {"gae_lambda", "credit", "token_gae_lambda"}
_CLIP = {"clip_low", "clip_high"}
_EPOCHS = {"epochs", "minibatch_decisions"}

REINFORCE = Algorithm(
    return_credit,
    _policy_gradient,
    one_epoch=True,
    uses=_GRADIENT | _ADVANTAGES | _HINDSIGHT | {"baseline", "value_coef"},
)
"""REINFORCE (Williams 1992, Machine Learning 8, eq. 11): -(R_t - b) log pi(a_t | s_t), R_t the
discounted return from step t on.

Departures: the step's own factor discount^t is left out, as nearly everywhere; advantages are
standardised over the rollout by default, which is a baseline and a scale; a truncated episode's
return ends there, without a critic's estimate of the rest; an entropy bonus; AdamW or Muon."""

A2C = Algorithm(
    gae_credit,
    _policy_gradient,
    critic=True,
    one_epoch=True,
    uses=_GRADIENT | _ADVANTAGES | _HINDSIGHT | _GAE | {"value_coef"},
)
"""Advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783, sec. 4.2, in step with itself):
-A log pi + value_coef (V - R)^2 / 2 - entropy_coef H.

Departures: A is GAE's over whole episodes, where the paper's is of five steps; it is standardised
over the rollout; AdamW or Muon in place of RMSProp."""

PPO = Algorithm(
    gae_credit,
    _clipped,
    critic=True,
    uses=_GRADIENT
    | _ADVANTAGES
    | _HINDSIGHT
    | _GAE
    | _CLIP
    | _EPOCHS
    | {"target_kl", "value_coef"},
)
"""PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9, with GAE, eq. 11).

Departures: advantages are standardised over the rollout, not the minibatch; the clip may have two
sides of different width (DAPO); no step is taken once approx_kl (k3, Schulman 2020) passes
target_kl; values are not clipped; rollouts are whole episodes, so that only truncation bootstraps;
tokens of one decision are averaged over the minibatch (loss_aggregation)."""

GRPO = Algorithm(
    group_mean_credit,
    _clipped,
    grouped=True,
    normalise="group",
    uses=_GRADIENT | _ADVANTAGES | _HINDSIGHT | _CLIP | _EPOCHS | {"target_kl"},
)
"""GRPO with outcome rewards (Shao et al. 2024, arXiv 2402.03300, eq. 3 and sec. 4.1.2):
A = (R - mean of the group) / deviation of the group, for every decision of the episode.

Departures: R is discounted from the episode's beginning (discount=1 is the paper's; a text, one
decision, has nothing to discount); the deviation is a sample's (n - 1), as in TRL and verl, where
the paper leaves it open; tokens are averaged over the minibatch as in DAPO (loss_aggregation=
sequence-mean is the paper's); groups whose returns are alike have advantage 0, and a minibatch of
nothing else makes no step; there is an entropy bonus (entropy_coef=0 for none), and no KL penalty
unless kl_coef is set: then k3 in the loss, as there, which follows the gradient of
KL(reference | policy). Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) is normalise=none with
loss_aggregation=constant; DAPO's (arXiv 2503.14476) clip and filter are clip_high and
drop_flat_groups, which plays no further groups in place of those it drops."""

RLOO = Algorithm(
    leave_one_out_credit,
    _policy_gradient,
    one_epoch=True,
    grouped=True,
    normalise="none",
    uses=_GRADIENT | _ADVANTAGES | _HINDSIGHT,
)
"""RLOO (Ahmadian et al. 2024, arXiv 2402.14740, eq. 8; Kool et al. 2019): the return less the mean
of the group's others, times -log pi of the whole.

Departures: as GRPO's for discount, flat groups and entropy; log pi is averaged over the minibatch's
tokens, which is the paper's sum times a constant; the paper's KL penalty in the reward is
kl_in=reward."""

TRPO = Algorithm(
    gae_credit,
    _surrogate,
    critic=True,
    trust_region=True,
    step=natural_step,
    uses=_ADVANTAGES | _GAE | _EPOCHS | {"target_kl", "fisher_fraction"},
)
"""TRPO (Schulman et al. 2015, arXiv 1502.05477, eq. 14, app. C; with GAE, arXiv 1506.02438):
:mod:`lang_agent.learn.trust_region`.

Departures: states count alike, not by their discounted visits; the divergence is exact over the
admissible phrases, and k3 at the drawn tokens of generated text, a token's in the mean; damping of
0.1; a step is accepted if it brings a tenth of what the gradient promises (modular_rl); the entropy
bonus and a KL penalty in the loss are part of what is lowered; the critic learns its value head
alone, in ``epochs`` passes of ``minibatch_decisions``, by AdamW, so that it moves no action."""

IMITATION = Algorithm(
    return_credit,
    _likelihood,
    critic=True,
    imitates=True,
    normalise="none",
    uses=_GRADIENT | _EPOCHS | {"value_coef"},
)
"""Behaviour cloning (Pomerleau 1989) and DAgger (Ross et al. 2011, arXiv 1011.0686): -log pi of
what the expert would do; who plays is said in :mod:`lang_agent.agents.dagger`.

Departures: a critic learns the returns of whoever played, for later training from reward; an
entropy bonus unless entropy_coef=0; DAgger learns each rollout's states once and keeps none."""

ALGORITHMS = {
    "reinforce": REINFORCE,
    "a2c": A2C,
    "ppo": PPO,
    "grpo": GRPO,
    "rloo": RLOO,
    "trpo": TRPO,
    "imitation": IMITATION,
}


def algorithm_of(config: LearnConfig) -> Algorithm:
    """The row that the configuration names: one of the table, or a person's by ``module:name``.

    Raises :class:`LangAgentError` for a name that names none, or that may not be imported.
    """
    name = config.algorithm
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if ":" not in name:
        raise unknown("algorithm", name, [*ALGORITHMS, "module:name"])
    return own_algorithm(name, config.source)


def uses_critic(config: LearnConfig) -> bool:
    """Whether a value head is learned."""
    return algorithm_of(config).learns_values(config)


NEEDS: dict[str, tuple[str, Callable[[LearnConfig], bool]]] = {
    "value_coef": ("a critic: set baseline=value", uses_critic),
    "baseline": (
        "normalise=group or none: a constant is no baseline where the batch's mean is taken off",
        lambda config: config.baseline == "value" or config.normalise != "batch",
    ),
    "token_gae_lambda": ("credit=tokens", lambda config: config.credit == "tokens"),
    "drop_flat_groups": ("groups: set group_size to 2 or more", lambda c: (c.group_size or 1) > 1),
    "kl_in": ("kl_coef above 0", lambda config: config.kl_coef > 0),
    "kl_estimator": (
        "kl_coef above 0 and kl_in=loss",
        lambda config: config.kl_coef > 0 and config.kl_in == "loss",
    ),
    "kl_target": ("kl_coef above 0", lambda config: config.kl_coef > 0),
    "kl_horizon": ("kl_target", lambda config: config.kl_target is not None),
}
"""Options that are read only where another one is set: what that is, and whether it is."""


NEW_RATE, TRAINED_RATE = 2e-3, 1e-4  # learning rates of random weights, and of trained ones


def resolve(config: LearnConfig, *, new: bool = True) -> LearnConfig:
    """The configuration with the algorithm's own choices where none were made.

    Raises :class:`LangAgentError` for an unknown algorithm or optimizer, and for options that the
    algorithm has no use for.

    Args:
        new: whether the model has random weights, for the learning rate.
    """
    row, name = algorithm_of(config), config.algorithm
    if config.optimizer not in OPTIMIZERS:
        with names_from(config.source):
            find_optimizer(config.optimizer)
    own = "none" if config.baseline == "moving" else row.normalise
    resolved_already = {"normalise"} if config.normalise == own else set()
    refuse_unused(config, {
        option: f"with {name}: it is for {', '.join(users)}"
        for option, users in _users().items()
        if option not in row.uses | resolved_already
    })  # fmt: skip
    size = config.group_size or (4 if row.grouped else 1)
    if row.grouped and size < 2:
        raise LangAgentError(f"{name} compares episodes of one seed: group_size must be 2 or more.")
    normalise = config.normalise or own
    if size < 2 and normalise == "group":
        raise LangAgentError("There are no groups: set group_size to 2 or more.")
    if row.trust_region and config.target_kl is None:
        raise LangAgentError("trpo needs a target_kl: it is the bound on its steps.")
    rate = config.learning_rate or (NEW_RATE if new or row.trust_region else TRAINED_RATE)
    resolved = replace(config, group_size=size, normalise=normalise, learning_rate=rate)
    refuse_unused(
        resolved,
        {option: f"without {what}" for option, (what, met) in NEEDS.items() if not met(resolved)},
    )
    return resolved


def _users() -> dict[str, list[str]]:
    """The algorithms that read each option which not all of them share."""
    users: dict[str, list[str]] = {}
    for name, row in ALGORITHMS.items():
        for option in row.uses:
            users.setdefault(option, []).append(name)
    return users


def at_progress(config: LearnConfig, done: float) -> LearnConfig:
    """The configuration when the part ``done`` of the run lies behind: the entropy bonus moves
    linearly to ``entropy_final``."""
    if config.entropy_final is None:
        return config
    moved = config.entropy_coef + done * (config.entropy_final - config.entropy_coef)
    return replace(config, entropy_coef=moved)
