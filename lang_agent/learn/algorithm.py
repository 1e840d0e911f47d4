"""What tells one way to learn from another; the rows are in :mod:`lang_agent.learn.algorithms`."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from lang_agent.episode import Episode
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.sequences import Batch, Sample

if TYPE_CHECKING:
    from lang_agent.learn.learner import Learner


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


Step = Callable[["Learner", Sequence[Sample], Sequence[Sample]], dict[str, float]]


@dataclass(frozen=True)
class Algorithm:
    """What tells one policy-gradient method from another."""

    credit: Callable[[Sequence[Episode], list[list[float]], LearnConfig, LearnState], Credit]
    """(episodes, their rewards, config, state) -> advantages and returns; changes nothing but
    ``state``, since with a KL penalty in the reward it is asked without and with it"""
    policy_loss: Callable[[Tensor, Batch, LearnConfig], Tensor] | None = None
    """(new log-probabilities (D, L), batch, config) -> (D, L) losses; None where ``step`` has
    another"""
    critic: bool = False
    one_epoch: bool = False
    """True where the loss is right only for the policy that acted: a rollout then makes one
    gradient step, on all of its decisions together."""
    normalise: str = "batch"
    """How advantages are scaled by default."""
    grouped: bool = False
    """Compares episodes of one seed."""
    trust_region: bool = False
    """Steps by conjugate gradients within a bound on the KL divergence."""
    imitates: bool = False
    """Learns what the expert chose, whoever acted."""
    step: Step | None = None
    """(learner, samples, those relabelled in hindsight) -> what was measured: how the policy learns
    from the samples of an update; :func:`lang_agent.learn.steps.epochs_step` by default."""
    uses: Set[str] = frozenset()
    """Which of the options that not all algorithms share it reads; others are refused."""

    def learns_values(self, config: LearnConfig) -> bool:
        """Whether a value head is learned."""
        return self.critic or config.baseline == "value"
