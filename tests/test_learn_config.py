"""Settings of learning: numbers at their borders, and options that have no use where they stand."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

import pytest

from lang_agent import LangAgentError
from lang_agent.learn.config import CHOICES, ImitationConfig, LearnConfig
from lang_agent.models.decide import DecideConfig
from lang_agent.ranges import Range
from lang_agent.train.config import TrainConfig

KINDS = (LearnConfig, DecideConfig, ImitationConfig, TrainConfig)
BY_THE_MODEL = {"value_layer"}  # is checked against the model's own layers


def numbers() -> list[tuple[type, str, type, Range]]:
    """(configuration, field, int or float, range) of every number that can be set."""
    found = []
    for kind in KINDS:
        types = get_type_hints(kind, include_extras=True)
        for item in fields(kind):
            inner = get_args(types[item.name]) or (types[item.name],)
            plain = get_args(inner[0]) or (inner[0],)  # X | None
            number = next((one for one in (int, float) if one in plain), None)
            if number is None or item.name in BY_THE_MODEL:
                continue
            said = (*inner[1:], *getattr(inner[0], "__metadata__", ()))  # of one of several types
            (allowed,) = [extra for extra in said if isinstance(extra, Range)]
            found.append((kind, item.name, number, allowed))
    return found


NUMBERS = numbers()


def named(case: tuple[type, str, type, Range]) -> str:
    return f"{case[0].__name__}.{case[1]}"


def borders(number: type, allowed: Range) -> tuple[list[Any], list[Any]]:
    """The last numbers that are allowed and the first that are not, on both sides."""
    down, up = -math.inf, math.inf
    inside, outside = [], []
    for border, beyond in ((allowed.low, down), (allowed.high, up)):
        if border is not None:
            step = (1 if beyond > 0 else -1) if number is int else 0
            inside.append(number(border))
            outside.append(int(border) + step if step else math.nextafter(border, beyond))
    for border, within in ((allowed.above, up), (allowed.below, down)):
        if border is not None:
            inside.append(math.nextafter(border, within))
            outside.append(number(border))
    return inside, outside


@pytest.mark.parametrize("case", NUMBERS, ids=named)
def test_a_number_is_taken_up_to_its_border_and_refused_beyond(case):
    kind, name, number, allowed = case
    inside, outside = borders(number, allowed)
    assert outside  # every number has one side at least where it stops making sense
    others = {"decide": "generate"} if kind is DecideConfig else {}  # where all of them have a use
    for value in inside:
        kind(**{**others, name: value})
    for value in [*outside, math.nan, math.inf, -math.inf]:
        with pytest.raises(LangAgentError, match=rf"^{name}=\S+ must be .*\.$"):
            kind(**{**others, name: value})


def test_every_number_of_the_settings_has_a_range():
    assert {kind for kind, *_ in NUMBERS} == set(KINDS)
    assert {"learning_rate", "batch_tokens", "kl_horizon", "top_p", "noise", "hindsight"} <= {
        name for _, name, *_ in NUMBERS
    }
    for kind, name, _, allowed in NUMBERS:
        (item,) = [item for item in fields(kind) if item.name == name]
        assert item.default is not MISSING
        assert item.default is None or allowed.holds(item.default)


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 0.00999])
def test_a_temperature_that_overflows_is_refused(temperature):
    with pytest.raises(LangAgentError, match=r"must be 0 \(greedy\), or 0.01 or more"):
        DecideConfig(temperature=temperature)
    DecideConfig(temperature=0.01)


@pytest.mark.parametrize("name", CHOICES)
def test_words_that_are_no_choice_are_refused(name):
    with pytest.raises(LangAgentError, match=f"Unknown {name} 'nothing'"):
        LearnConfig(**{name: "nothing"})
