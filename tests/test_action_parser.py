"""Parsing what was written."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lang_agent import LangAgentError, parse_action
from lang_agent.text_env.action_parser import MAX_READ, NEGATIONS, _english, normalise

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


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("lock door", ("unlock door", "open door")),
        ("un-lock door", ("lock door",)),
        ("turn off lamp", ("turn on lamp",)),
        ("turnof lamp", ("turn on lamp",)),
        ("lift box", ("left box",)),
        ("upload file", ("unload file",)),
        ("untie rope", ("unite rope",)),
        ("fight", ("flight",)),
        ("take bell", ("take ball",)),
        ("go west", ("go east", "go north")),
        ("increase", ("decrease",)),
        ("take a part", ("take apart",)),
        ("turn left", ("turn lift", "turn right")),
        # numbers
        ("take door 3", ("take door 1", "take door 2")),
        ("take door 3", ("take door", "go")),
        ("take door 1 or 3", ("take door 1", "take door 2")),
        ("take door three", ("take door 1", "take door 3")),
        ("go forward 3 times", ("go forward", "drop")),
        ("go forward twice", ("go forward", "drop")),
        ("-1", ("1", "2")),
        ("−1", ("1", "2")),
        ("minus 1", ("1", "2")),
        ("I choose -1.", ("1", "2")),
        ("1.5", ("1", "2")),
        (".5", ("5", "2")),
        ("½", ("1", "3")),
        ("1-2", ("1", "3")),
        ("10", ("1", "0", "1 0")),
        # negations
        ("do not turn left", ("turn left", "drop")),
        ("Don't turn left!", ("turn left", "drop")),
        ("don’t turn left", ("turn left", "drop")),
        ("dont turn left", ("turn left", "drop")),
        ("never turn left", ("turn left", "drop")),
        ("turn left? No.", ("turn left", "drop")),
        ("I would avoid turn left", ("turn left", "drop")),
        ("I don't want to pick up, so I wait", ("pick up", "drop")),
        ("≠ drop", ("turn left", "drop")),
        ("!drop", ("turn left", "drop")),
        ("~~drop~~", ("turn left", "drop")),
        ("je ne veux pas avancer", ("avancer", "poser")),
        ("ich will nicht gehen", ("gehen", "warten")),
        ("не идти", ("идти", "ждать")),
        ("不要向左转", ("向左转", "向右转")),
        ("左に曲がらない", ("左に曲がる", "右に曲がる")),
        ("左に曲がるな", ("左に曲がる", "右に曲がる")),
        ("อย่าเลี้ยวซ้าย", ("เลี้ยวซ้าย", "เลี้ยวขวา")),
        ("왼쪽 돌기 안 해", ("왼쪽 돌기", "오른쪽 돌기")),
        ("向左边转过去", ("向右边转过去", "停")),
    ],
)
def test_what_contradicts_the_phrases_is_invalid(text, actions):
    for written in (text, f"Action: {text}\n", text.upper()):
        parsed = parse_action(written, actions)
        assert (parsed.action, parsed.verdict) == (None, "invalid"), written
        assert parsed.reason


@pytest.mark.parametrize(
    ("text", "actions", "action", "verdict"),
    [
        ("I pick 1.", ("1", "2"), "1", "contained"),
        ("I pick −1.", ("-1", "1"), "-1", "contained"),
        ("+1", ("-1", "1"), "1", "normalised"),
        ("1. turn left", ("turn left", "drop"), "turn left", "contained"),
        ("A ball is 2 steps left, so I drop", ("turn left", "drop"), "drop", "contained"),
        ("please do not move", ("move", "do not move"), "do not move", "contained"),
        ("take door1", ("take door 1", "take door 2"), "take door 1", "near"),
        ("pickup", ("pick up", "drop"), "pick up", "near"),
        ("turnleft", ("turn left", "turn right"), "turn left", "near"),
        ("turn rihgt", ("turn left", "turn right"), "turn right", "near"),
        ("go foward", ("go forward", "drop"), "go forward", "near"),
        ("togle", ("toggle", "drop"), "toggle", "near"),
        ("tourner a droite", ("tourner à gauche", "avancer"), None, "invalid"),
        (unicodedata.normalize("NFD", "à gauche"), ("à gauche", "à droite"), "à gauche",
         "normalised"),
        # scripts without spaces
        ("我要向左转。", ("向左转", "向右转"), "向左转", "contained"),
        ("私は左に曲がる。", ("左に曲がる", "右に曲がる"), "左に曲がる", "contained"),
        ("ผมจะเลี้ยวซ้ายครับ", ("เลี้ยวซ้าย", "เลี้ยวขวา"), "เลี้ยวซ้าย", "contained"),
        ("ខ្ញុំបត់ឆ្វេង", ("បត់ឆ្វេង", "បត់ស្ដាំ"), "បត់ឆ្វេង", "contained"),
        # case and punctuation alone
        ("Action: Up\n", ("up", "Up"), "Up", "exact"),
        ("up\n", ("up", "Up"), "up", "exact"),
        ("Up\nI think", ("up", "Up"), "Up", "contained"),
        ("Thought. Action: C++ ", ("C", "C++", "C#"), "C++", "exact"),
        ("I use C#.", ("C", "C++", "C#"), "C#", "contained"),
        ("?\n", ("?", "!"), "?", "exact"),
        ("Action: 👍\n", ("👍", "👎"), "👍", "exact"),
    ],
)  # fmt: skip
def test_what_agrees_with_a_phrase_is_read(text, actions, action, verdict):
    parsed = parse_action(text, actions)
    assert (parsed.action, parsed.verdict) == (action, verdict)


def test_what_is_no_text_is_one_sentence():
    for wrong in (None, 3, b"drop", ["drop"]):
        with pytest.raises(LangAgentError, match="is no text"):
            parse_action(wrong, ACTIONS)


VERBS = (
    "open", "close", "lock", "unlock", "attach", "detach", "raise", "lower", "turn on", "turn off",
    "mount", "dismount", "load", "unload", "fill", "empty", "push", "pull",
)  # fmt: skip
THINGS = ("door 1", "door 2", "lamp", "red box", "blue box", "left hand", "right hand", "-1", "10")
PHRASE = st.builds("{} {}".format, st.sampled_from(VERBS), st.sampled_from(THINGS))
AROUND = st.sampled_from(["", "I will ", "Please, ", "So: ", "First I see a wall; then "])


@given(PHRASE, st.lists(PHRASE, min_size=1, max_size=6, unique=True), AROUND)
def test_a_phrase_is_read_where_it_is_admissible_and_nothing_else_is(said, actions, around):
    parsed = parse_action(f"{around}{said}.", actions)
    assert parsed.action == (said if said in actions else None)


@given(
    PHRASE,
    st.lists(PHRASE, min_size=1, max_size=6, unique=True),
    st.sampled_from(sorted(NEGATIONS)),
    st.booleans(),
)
def test_nothing_that_is_negated_is_done(said, actions, no, before):
    text = f"{no} {said}" if before else f"{said} {no}"
    assert parse_action(text, actions).action is None


LONG = st.sampled_from([verb for verb in VERBS if len(verb) >= 5 and verb.isalpha()])


@given(LONG, st.sampled_from(THINGS), st.lists(PHRASE, max_size=5), st.data())
def test_a_slip_of_the_pen_is_read_as_its_phrase_or_not_at_all(word, thing, others, data):
    said = f"{word} {thing}"
    actions = list(dict.fromkeys([*others, said]))
    cut = data.draw(st.integers(1, len(word) - 2))
    letter = data.draw(st.sampled_from("aeiourstn"))
    slip = data.draw(
        st.sampled_from(
            [
                word[:cut] + word[cut + 1 :],
                word[:cut] + letter + word[cut:],
                word[:cut] + letter + word[cut + 1 :],
                word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :],
            ]
        )
    )
    parsed = parse_action(f"{slip} {thing}", actions)
    if slip == word or slip not in _english():
        assert parsed.action == said
    else:
        assert parsed.action in (None, said)


@given(st.text(max_size=60), st.lists(PHRASE, min_size=1, max_size=4, unique=True))
def test_every_word_that_is_read_was_written_or_all_but(text, actions):
    parsed = parse_action(text, actions)
    if parsed.action is not None:
        assert re.findall(r"-?\d+", parsed.action) == re.findall(r"-?\d+", normalise(text))


@pytest.mark.parametrize(
    "text",
    [
        "e" + "\u0301\u0316" * 40_000,
        "e" + "\u0301\u0316" * (MAX_READ // 2 - 1),
        "a" * 700_000,
        "drop " * (MAX_READ // 5),
        "turn " * (MAX_READ // 5),
        "\ufdfa" * MAX_READ,  # one character that is eighteen when evened out
        "1-" * (MAX_READ // 2),
        "!" * MAX_READ,
        "向" * MAX_READ,
        "Action:" * 100_000,
    ],
)
def test_hostile_texts_are_read_in_no_time(text):
    started = time.perf_counter()
    parsed = parse_action(text, ACTIONS)
    assert time.perf_counter() - started < 1.0
    assert len(parsed.reason) < 400
