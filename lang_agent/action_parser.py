"""From what was written to one of the admissible phrases, with a verdict on how it was understood.

Where the text has "Action:" in it, what follows the last one is read (text before it is thinking).
The steps are tried in order and the first that applies decides:

``exact``       the text is a phrase, letter for letter
``normalised``  it is one after Unicode, case, punctuation and spacing are evened out
``contained``   exactly one phrase stands in it as whole words ("I will turn left now")
``near``        one phrase is at least ``NEAR`` per cent similar ("trun left"), and no other ties
``invalid``     anything else, and always when two different phrases fit equally well

The similarity is rapidfuzz's ratio, the normalised indel similarity in per cent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz import fuzz

from lang_agent.errors import LangAgentError

Verdict = Literal["exact", "normalised", "contained", "near", "invalid"]

MARKER = "Action:"
NEAR = 80.0  # per cent; "trun left" is 89 from "turn left", "turn right" is 74 from it


@dataclass(frozen=True)
class ParsedAction:
    """The phrase that the text stands for (None when invalid), the verdict, and the reason."""

    action: str | None
    verdict: Verdict
    reason: str = ""


def normalise(text: str) -> str:
    """Case, punctuation, accents' encoding and runs of white space evened out."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w\s]|_", " ", text).split())


def parse_action(text: str, actions: Sequence[str]) -> ParsedAction:
    """What ``text`` means among the admissible phrases ``actions``.

    Raises :class:`LangAgentError` when ``actions`` is empty.
    """
    if not actions:
        raise LangAgentError("There is no admissible action to choose from: the list is empty.")
    if text in actions:
        return ParsedAction(text, "exact")
    text = text.rpartition(MARKER)[2]
    written = normalise(text)
    if not written:
        return ParsedAction(None, "invalid", "nothing was written")
    phrases = {action: normalise(action) for action in actions}
    same = [action for action, phrase in phrases.items() if phrase == written]
    if same:
        return _only(same, "normalised")
    found = _contained(written, phrases)
    if found:
        return _only(found, "contained")
    scores = {action: fuzz.ratio(written, phrase) for action, phrase in phrases.items()}
    best = max(scores.values())
    if best >= NEAR:
        return _only([action for action, score in scores.items() if score == best], "near")
    return ParsedAction(None, "invalid", f"{text!r} is none of: {', '.join(actions)}")


def _contained(written: str, phrases: dict[str, str]) -> list[str]:
    """Phrases that stand in ``written`` as whole words, but not inside a longer such phrase."""
    padded = f" {written} "
    found = []
    for action, phrase in sorted(phrases.items(), key=lambda item: -len(item[1])):
        if phrase and f" {phrase} " in padded:
            found.append(action)
            padded = padded.replace(f" {phrase} ", " \0 ")
    return found


def _only(found: list[str], verdict: Verdict) -> ParsedAction:
    if len(found) == 1:
        return ParsedAction(found[0], verdict)
    return ParsedAction(None, "invalid", f"ambiguous between: {', '.join(sorted(found))}")
