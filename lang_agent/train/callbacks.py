"""What a person's own functions, by ``module:name``, add to a run after each of its updates."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError, shown
from lang_agent.extensions import ExtensionError, check_takes, named_errors
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_log import finite
from lang_agent.trust import load_function, names_from

if TYPE_CHECKING:
    from lang_agent.train.trainer import Trainer

Metric = Callable[[Episode], float | Mapping[str, float]]
"""An episode that was learned from -> a number, or several by name."""
Callback = Callable[["Trainer", dict[str, Any], Sequence[Episode]], object]
"""(run, metrics of the update, its episodes): called after every update; what it adds to the
metrics is logged."""
PREFIX = "metric/"
"""Stands before the name of every metric that is a person's own or a world's."""


class Callbacks:
    """The metrics and callbacks that a configuration names. A class is made anew for the run.

    Raises:
        LangAgentError: a name that names no function, or that may not be imported, or a function
            that takes other arguments.
    """

    def __init__(self, config: TrainConfig) -> None:
        with names_from(config.text.source):
            self._metrics: dict[str, Metric] = {
                name: _function(name, "metric", ("episode",)) for name in config.metrics
            }
            self._callbacks: dict[str, Callback] = {
                name: _function(name, "callback", ("run", "metrics", "episodes"))
                for name in config.callback
            }

    def __call__(self, run: Trainer, metrics: dict[str, Any], episodes: Sequence[Episode]) -> None:
        """Add to an update's metrics what the functions say of it.

        Raises :class:`ExtensionError` where one of them fails; what those before it added stays.
        """
        for name, metric in self._metrics.items():
            metrics |= _means(name, metric, episodes)
        for name, callback in self._callbacks.items():
            given = dict(metrics)
            with named_errors(f"The callback {name!r}"):
                callback(run, given, episodes)
            metrics |= added(metrics, given, f"The callback {name!r}")


def added(metrics: Mapping[str, Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What ``given``, a copy of an update's metrics, has beside them, as it is logged: as
    ``metric/<name>`` unless the name has a group already.

    Raises :class:`ExtensionError` for what is neither a number nor a text.
    """
    found = {}
    for name in given.keys() - metrics.keys():
        try:
            value = finite(given[name])
        except (ValueError, RuntimeError):  # an array of several numbers
            value = given[name]
        if not isinstance(name, str) or not isinstance(value, int | float | str | None):
            raise ExtensionError(
                f"{what} puts {shown(given[name])} into the metrics as {shown(name)}, where a "
                "number or a text is expected."
            )
        found[name if "/" in name else PREFIX + name] = value
    return found


def _means(name: str, metric: Metric, episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean of each number over the episodes that have it."""
    said: dict[str, list[float]] = {}
    for episode in episodes:
        with named_errors(f"The metric {name!r}"):
            found: Any = metric(episode)
        numbers = found if isinstance(found, Mapping) else {name.rpartition(":")[2]: found}
        try:
            for one, value in numbers.items():
                said.setdefault(f"{PREFIX}{one}", []).append(float(value))
        except (TypeError, ValueError):
            raise ExtensionError(
                f"The metric {name!r} returns {shown(found)}, where a number, or a dictionary of "
                "numbers, is expected."
            ) from None
    return {one: statistics.fmean(values) for one, values in said.items()}


def _function(name: str, kind: str, given: Sequence[str]) -> Callable[..., Any]:
    """What ``module:name`` names, of a class an object; it takes what it will be given."""
    found = load_function(name)
    if isinstance(found, type):
        with named_errors(f"The {kind} {name!r}"):
            found = found()
    if not callable(found):
        raise LangAgentError(
            f"The {kind} {name!r} makes a {type(found).__name__} that cannot be called: give the "
            f"class a __call__(self, {', '.join(given)})."
        )
    check_takes(found, f"The {kind} {name!r}", given)
    return found
