"""Numbers of a configuration: in the range that their type names, or refused in one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from lang_agent import LangAgentError
from lang_agent.ranges import Range, check_ranges


@dataclass(frozen=True)
class Options:
    rate: Annotated[float, Range(above=0)] = 0.1
    count: Annotated[int | None, Range(1)] = None
    share: Annotated[float, Range(0, 1)] = 0.5
    again: Annotated[float, Range(0, below=1)] = 0.0
    anything: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rate", 0.0, "rate=0.0 must be above 0."),
        ("rate", float("nan"), "rate=nan must be above 0, and finite."),
        ("rate", float("inf"), "rate=inf must be above 0, and finite."),
        ("count", 0, "count=0 must be 1 or more."),
        ("share", 1.001, "share=1.001 must be between 0 and 1."),
        ("share", -0.001, "share=-0.001 must be between 0 and 1."),
        ("again", 1.0, "again=1.0 must be 0 or more, below 1."),
    ],
)
def test_a_number_out_of_its_range_is_one_sentence(name, value, sentence):
    with pytest.raises(LangAgentError) as found:
        Options(**{name: value})
    assert str(found.value) == sentence


def test_the_borders_themselves_and_nothing_are_in_the_range():
    Options(rate=5e-324, count=1, share=0, again=0.0)
    Options(count=None, share=1, anything=float("nan"))
    Options(count=10**400)


@dataclass(frozen=True)
class Several:
    """A range is found wherever it stands in the type."""

    threads: Annotated[int, Range(1, 8)] | None = None
    rate: Annotated[float | None, Range(above=0)] = None

    def __post_init__(self) -> None:
        check_ranges(self)


def test_a_range_of_one_of_several_types_holds():
    assert Several(threads=8, rate=0.5)
    assert Several()
    for name, value in (("threads", 0), ("threads", 9), ("rate", 0.0), ("rate", float("nan"))):
        with pytest.raises(LangAgentError, match=f"{name}={value} must be"):
            Several(**{name: value})
