"""Wordings of the BabyAI worlds: varied ones to train on, others to test with.

The tested words occur in no training wording: not the nouns chair, table and car, not the invented
words, not the synonyms. (Invented words to train on are made of two or three of ``SYLLABLES``;
none of the tested ones is.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lang_agent.wording import Wording

from .minigrid import PHRASES

NOUNS = ("ball", "box", "key")
COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
OTHER_NOUNS = (
    "cup", "lamp", "book", "hat", "drum", "bell", "coin", "ring", "shoe", "pen", "fork", "vase",
    "rope", "kite", "doll", "tent", "boat", "clock", "plate", "stone", "mug", "bag", "crown",
    "flute", "bottle", "basket", "pillow", "ladder", "button", "candle",
)  # fmt: skip
OTHER_COLORS = (
    "orange", "pink", "brown", "white", "black", "golden", "silver", "teal", "violet", "beige",
    "scarlet", "navy", "olive", "maroon", "cyan", "pale", "dark", "shiny", "striped", "wooden",
)  # fmt: skip
SYLLABLES = tuple(f"{first}{vowel}" for first in "bdfgklmnprstvz" for vowel in "aeiou")
OTHER_ACTIONS = (
    ("spin left", "swing left", "veer left", "go left", "face left"),
    ("spin right", "swing right", "veer right", "go right", "face right"),
    ("walk forward", "step forward", "go straight", "advance", "walk on"),
    ("grab", "lift", "collect", "fetch", "get"),
    ("put down", "let go", "lay down", "leave", "set down"),
    ("use", "operate", "activate", "flip", "open or close"),
)


def varied(rng: np.random.Generator) -> Wording:
    """For training: other nouns, colours and phrases, each in half of the episodes; a quarter of
    the new words is invented on the spot."""
    words: dict[str, str] = {}
    pools: tuple[tuple[Sequence[str], Sequence[str]], ...] = (
        (NOUNS, OTHER_NOUNS),
        (COLORS, OTHER_COLORS),
    )
    for own, others in pools:
        if rng.random() < 0.5:
            new = _draw(rng, (*own, *others), len(own))
            words |= dict(zip(own, (_maybe_invented(rng, word) for word in new), strict=True))
    actions: dict[str, str] = {}
    if rng.random() < 0.5:
        for phrase, others in zip(PHRASES, OTHER_ACTIONS, strict=True):
            actions[phrase] = str(rng.choice((phrase, *others)))
    return _distinct(words, actions, rng)


varied.names = (*NOUNS, *COLORS, *OTHER_NOUNS, *OTHER_COLORS)  # type: ignore[attr-defined]


def new_nouns(rng: np.random.Generator) -> Wording:
    """For testing: nouns that were never trained on."""
    return Wording(words={"box": "chair", "ball": "table", "key": "car"})


def invented(rng: np.random.Generator) -> Wording:
    """For testing: invented nouns and colours."""
    nouns = dict(zip(NOUNS, ("dax", "blicket", "wug"), strict=True))
    colors = ("zarn", "mipple", "flirn", "quon", "vleck", "squibbish")
    return Wording(words=nouns | dict(zip(COLORS, colors, strict=True)))


def synonyms(rng: np.random.Generator) -> Wording:
    """For testing: other words for every action."""
    said = ("rotate left", "rotate right", "move ahead", "take", "release", "switch")
    return Wording(actions=dict(zip(PHRASES, said, strict=True)))


def _draw(rng: np.random.Generator, words: Sequence[str], count: int) -> list[str]:
    return [str(word) for word in rng.choice(words, count, replace=False)]


def _maybe_invented(rng: np.random.Generator, word: str) -> str:
    return word if rng.random() < 0.75 else "".join(_draw(rng, SYLLABLES, int(rng.integers(2, 4))))


def _distinct(words: dict[str, str], actions: dict[str, str], rng: np.random.Generator) -> Wording:
    if len(set(words.values())) < len(words):  # two invented words alike: draw again
        return varied(rng)
    return Wording(words, actions)
