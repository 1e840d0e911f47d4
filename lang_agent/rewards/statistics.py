"""Rewards of text: plain functions that name what they want to see as arguments.

A reward takes any of ``prompt``, ``text`` (what was written), ``tokens`` and ``info``, or their
plurals for all texts of a group, and options of its own. :mod:`lang_agent.rewards.rubric` says
what it may return, and weighs several.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.words import NUMBER, UNSPACED, WORD

_WORDS = re.compile(rf"{NUMBER}(?!\w)|(?:{WORD})(?:'\w+)*")
_UNSPACED = re.compile(f"[{UNSPACED}]")
OPENING, CLOSING = "\"'“”‘’«»‹›„‚(（[「『¿¡ ", "\"'“”‘’«»‹›)）]」』 "
ENDS = (".", "!", "?", "…", "。", "！", "？", "．", "।", "۔", "؟", "։", "።", "။", "។")

RUDE = (
    "stupid", "idiot", "dumb", "moron", "fool", "loser", "pathetic", "worthless", "disgusting",
    "trash", "scum", "hate",
)  # fmt: skip
"""A few insults; give ``words`` for your own list."""


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case: letters, digits and apostrophes, or a number with its
    fraction. In scripts that put no spaces between words (Chinese, Japanese, Thai, Khmer, Lao,
    Burmese) each character counts as one."""
    return _WORDS.findall(_even(text).lower())


def _even(text: str) -> str:
    """One spelling for accents and apostrophes that can be written in several ways."""
    return unicodedata.normalize("NFC", text).replace("’", "'").replace("ʼ", "'")


def _positive(name: str, **options: float) -> None:
    for option, value in options.items():
        if not value > 0:
            raise LangAgentError(f"The reward {name!r} needs {option}={value} to be above 0.")


def length(text: str, *, target: int = 20, tolerance: float = 1.0) -> float:
    """1 at ``target`` words, falling linearly to 0 at ``tolerance`` times the target away."""
    _positive("length", target=target, tolerance=tolerance)
    away = abs(len(words_of(text)) - target) / (tolerance * target)
    return max(1.0 - away, 0.0)


def diversity(text: str, *, n: int = 2) -> float | None:
    """The share of different n-grams of words (Li et al. 2016, arXiv 1510.03055, distinct-n); None
    for a text shorter than n words."""
    _positive("diversity", n=n)
    words = words_of(text)
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, *, n: int = 2) -> float | None:
    """The share of n-grams of words that were there before: 1 - :func:`diversity`."""
    different = diversity(text, n=n)
    return None if different is None else 1.0 - different


def keywords(text: str, *, words: Sequence[str] = ()) -> float:
    """The share of ``words`` that the text has, as whole words and in any case.

    What belongs to a word is looked for as well: neither "C++" nor "C#" is "C", and "-3" and "3.5"
    are not "3". Where a keyword is several words, punctuation may stand between them.
    """
    if isinstance(words, str) or not words:
        raise LangAgentError("The reward 'keywords' needs words to look for: words=[...].")
    said = _even(text).casefold()
    return sum(_keyword(str(word)).search(said) is not None for word in words) / len(words)


@lru_cache(maxsize=1024)
def _keyword(word: str) -> re.Pattern[str]:
    parts = _even(word).casefold().split()
    if not parts:
        raise LangAgentError("The reward 'keywords' cannot look for an empty word.")
    first, last = parts[0][0], parts[-1][-1]
    before, after = _joins(first) and r"(?<!\w)", _joins(last) and r"(?!\w|[+#%]|'\w)"
    if first.isdigit():
        before = r"(?<!\w)(?<!\d[.,])(?<![-−+])"
    if last.isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + r"[^\w]+".join(map(re.escape, parts)) + after)


def _joins(letter: str) -> str:
    """Whether what stands beside this letter can belong to the same word (empty: no)."""
    return letter if letter.isalnum() and not _UNSPACED.match(letter) else ""


def matches(text: str, *, pattern: str = "", whole: bool = False) -> float:
    """1 where the regular expression is found in the text (``whole``: is all of it), else 0."""
    if not pattern:
        raise LangAgentError("The reward 'matches' needs a regular expression: pattern=...")
    try:
        found = re.fullmatch(str(pattern), text) if whole else re.search(str(pattern), text)
    except re.error as error:
        raise LangAgentError(f"The pattern {pattern!r} is broken: {error}.") from None
    return float(found is not None)


def sentences(text: str) -> float:
    """The form of prose: 1 for a text that begins with a capital and ends a sentence, 1/2 for one
    of the two. Quotes and brackets around it do not matter; in a script without capitals any letter
    begins a sentence."""
    body = text.strip()
    first = body.lstrip(OPENING)[:1]
    capital = first.isalpha() and not first.islower()
    return (float(capital) + float(body.rstrip(CLOSING).endswith(ENDS))) / 2


def rudeness(text: str, *, words: Sequence[str] = RUDE) -> float:
    """The share of the text's words that are on a list; to be weighed below 0."""
    said, listed = words_of(text), {_even(str(word)).lower() for word in words}
    return sum(word in listed for word in said) / len(said) if said else 0.0


def sentiment(text: str) -> float:
    """VADER's compound sentiment in -1 to 1 (Hutto and Gilbert 2014): a lexicon with rules for
    negation, emphasis and contrast. Needs the extra ``text``."""
    scores: dict[str, float] = _vader().polarity_scores(text)
    return scores["compound"]


@lru_cache(maxsize=1)
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise LangAgentError(
            "The reward 'sentiment' needs an extra: pip install 'lang_agent[text]'."
        ) from None
    return SentimentIntensityAnalyzer()
