"""Which numbers a setting may be: said once, in its type, and checked by one rule.

@dataclass(frozen=True)
class Options:
    learning_rate: Annotated[float, Range(above=0)] = 1e-3
    episodes: Annotated[int, Range(1)] = 200

    def __post_init__(self) -> None:
        check_ranges(self)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from lang_agent.errors import LangAgentError


@dataclass(frozen=True)
class Range:
    """The finite numbers from ``low`` to ``high``, or between ``above`` and ``below``."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether ``value`` is one of them; NaN and the infinities never are."""
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"between {self.low:g} and {self.high:g}"
        parts = (
            (self.low, "{:g} or more"),
            (self.above, "above {:g}"),
            (self.below, "below {:g}"),
            (self.high, "at most {:g}"),
        )
        said = [form.format(bound) for bound, form in parts if bound is not None]
        return ", ".join(said) or "a finite number"


def check_ranges(config: Any) -> None:
    """Raise :class:`LangAgentError` for a number of the dataclass ``config`` that is not in the
    range that its type names; None and texts, where they may stand there, always are."""
    for name, allowed in _ranges(type(config)).items():
        value = getattr(config, name)
        if not isinstance(value, (str, NoneType)) and not allowed.holds(value):
            finite = isinstance(value, int) or math.isfinite(value)
            raise LangAgentError(
                f"{name}={value} must be {allowed}{'' if finite else ', and finite'}."
            )


def _ranges(kind: Any) -> dict[str, Range]:
    types = get_type_hints(kind, include_extras=True)
    found = {item.name: _range_of(types[item.name]) for item in fields(kind)}
    return {name: allowed for name, allowed in found.items() if allowed is not None}


def _range_of(wanted: Any) -> Range | None:
    """The range in a type, also in one of several (``Annotated[int, Range(1)] | None``)."""
    for one in (*getattr(wanted, "__metadata__", ()), *get_args(wanted)):
        found = one if isinstance(one, Range) else _range_of(one)
        if found is not None:
            return found
    return None


def require(name: str, value: object, holds: bool, what: str) -> None:
    """Raise :class:`LangAgentError` unless the value ``holds`` to what it must be."""
    if not holds:
        raise LangAgentError(f"{name}={value} must be {what}.")


def refuse_unused(config: Any, unused: Mapping[str, str]) -> None:
    """Raise :class:`LangAgentError` for an option that is set and has no use.

    An option is set where it is neither at its default nor None, which asks for nothing.

    Args:
        config: a configuration dataclass.
        unused: option -> why it has no use, as the end of the sentence "x=1 has no use ...".
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if item.name in unused and value is not None and value != item.default:
            raise LangAgentError(
                f"{item.name}={value} has no use {unused[item.name]}; leave it at {item.default}."
            )
