"""Parsing what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lang_agent import LangAgentError, parse_action

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle", "go")


@pytest.mark.parametrize(
    ("text", "action", "verdict"),
    [
        ("turn left", "turn left", "exact"),
        ("  Turn LEFT.\n", "turn left", "normalised"),
        ("turn_left", "turn left", "normalised"),
        ("I will turn left now", "turn left", "contained"),
        ("go forward please", "go forward", "contained"),  # and not its part "go"
        ("trun left", "turn left", "near"),
        ("picup", "pick up", "near"),
        ("", None, "invalid"),
        ("?!", None, "invalid"),
        ("dance", None, "invalid"),
        ("turn", None, "invalid"),
        ("turn left or turn right", None, "invalid"),
        ("turnleft turnright", None, "invalid"),
        ("dropping", None, "invalid"),
        ("ｄｒｏｐ", "drop", "normalised"),
    ],
)
def test_verdicts(text, action, verdict):
    parsed = parse_action(text, ACTIONS)
    assert (parsed.action, parsed.verdict) == (action, verdict)
    assert bool(parsed.reason) == (verdict == "invalid")


def test_a_tie_between_near_phrases_is_ambiguous():
    parsed = parse_action("go leftx", ("go leftw", "go lefty"))
    assert parsed.verdict == "invalid"
    assert "ambiguous between: go leftw, go lefty" in parsed.reason


def test_phrases_that_differ_only_in_case_are_ambiguous_unless_exact():
    assert parse_action("Up", ("up", "Up")).verdict == "exact"
    assert parse_action("UP", ("up", "Up")).verdict == "invalid"


def test_no_actions_is_an_error():
    with pytest.raises(LangAgentError, match="list is empty"):
        parse_action("x", ())


@given(st.text(max_size=40))
def test_any_text_has_a_verdict_and_only_admissible_actions_come_out(text):
    parsed = parse_action(text, ACTIONS)
    assert (parsed.action is None) == (parsed.verdict == "invalid")
    assert parsed.action is None or parsed.action in ACTIONS


@given(st.sampled_from(ACTIONS), st.sampled_from(["", " ", "\n", "...", "!"]), st.booleans())
def test_case_and_punctuation_never_change_the_meaning(action, tail, upper):
    parsed = parse_action((action.upper() if upper else action) + tail, ACTIONS)
    assert parsed.action == action
