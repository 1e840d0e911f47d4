"""An algorithm of a person's own, by ``module:name``: its functions are checked at every call."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.extensions import ExtensionError, check_takes, named_errors
from lang_agent.learn.algorithm import Algorithm, Credit, LearnState
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.sequences import Batch, Sample
from lang_agent.trust import Source, find, names_from

if TYPE_CHECKING:
    from lang_agent.learn.learner import Learner

CREDIT = ("episodes", "rewards", "config", "state")
POLICY_LOSS = ("log_probs", "batch", "config")
STEP = ("learner", "samples", "relabelled")


def own_algorithm(name: str, source: Source | None) -> Algorithm:
    """The :class:`Algorithm` that ``module:name`` names.

    What its functions raise, or return in another shape than theirs, is an
    :class:`ExtensionError`.

    Raises:
        LangAgentError: there is none of that name, it may not be imported, it names options that
            there are not, or its functions take other arguments.
    """
    with names_from(source):
        row = find(name)
    what = f"The algorithm {name!r}"
    if row is None:
        module, _, own = name.partition(":")
        there = [
            n for n, value in vars(sys.modules[module]).items() if isinstance(value, Algorithm)
        ]
        raise unknown(f"algorithm in the module {module!r}:", own, there)
    if not isinstance(row, Algorithm):
        raise LangAgentError(
            f"{what} is a {type(row).__name__}, not a lang_agent.Algorithm: make one of your "
            "functions, as docs/extending.md shows."
        )
    options = {item.name for item in fields(LearnConfig)}
    for option in row.uses:
        if option not in options:
            raise unknown(f"option in the uses of {name!r}:", option, options)
    check_takes(row.credit, f"The credit of {name!r}", CREDIT)
    if row.policy_loss is not None:
        check_takes(row.policy_loss, f"The policy_loss of {name!r}", POLICY_LOSS)
    elif row.step is None:
        raise LangAgentError(f"{what} has neither a policy_loss nor a step to learn by: give one.")
    if row.step is not None:
        check_takes(row.step, f"The step of {name!r}", STEP)
    return _checked(row, name)


def _checked(row: Algorithm, name: str) -> Algorithm:
    """The row, with errors that name it in place of whatever its functions raise."""

    def credit(
        episodes: Sequence[Episode],
        rewards: list[list[float]],
        config: LearnConfig,
        state: LearnState,
    ) -> Credit:
        with named_errors(f"The credit of {name!r}"):
            found: Any = row.credit(episodes, rewards, config, state)
        lengths = [len(episode.steps) for episode in episodes]
        if not _is_pair(found) or any(_lengths(one) != lengths for one in found):
            raise ExtensionError(
                f"The credit of {name!r} must return two lists, advantages and returns, of a list "
                f"for every episode with a number for every step, and it returned {shown(found)}."
            )
        return found

    def policy_loss(log_probs: Tensor, batch: Batch, config: LearnConfig) -> Tensor:
        assert row.policy_loss is not None
        with named_errors(f"The policy_loss of {name!r}"):
            loss: Any = row.policy_loss(log_probs, batch, config)
        if not isinstance(loss, Tensor) or loss.shape != log_probs.shape:
            is_what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ExtensionError(
                f"The policy_loss of {name!r} must return a loss for every token, of the shape "
                f"{tuple(log_probs.shape)} of log_probs, and it returned {is_what}."
            )
        return loss

    def step(
        learner: Learner, samples: Sequence[Sample], relabelled: Sequence[Sample]
    ) -> dict[str, float]:
        assert row.step is not None
        with named_errors(f"The step of {name!r}"):
            measured: Any = row.step(learner, samples, relabelled)
        if not isinstance(measured, Mapping):
            raise ExtensionError(
                f"The step of {name!r} must return what it measured, a dictionary of numbers, and "
                f"it returned {shown(measured)}."
            )
        return dict(measured)

    return replace(
        row,
        credit=credit,
        policy_loss=None if row.policy_loss is None else policy_loss,
        step=None if row.step is None else step,
    )


def _is_pair(found: Any) -> bool:
    return isinstance(found, tuple | list) and len(found) == 2


def _lengths(credit: Any) -> list[int] | None:
    """How many numbers each episode has; None where it is no list of lists."""
    try:
        return [len(one) for one in credit]
    except TypeError:
        return None
