"""Wordings of the BabyAI worlds: varied ones to train on, others to test with.

No word of ``held_out.WORDS`` occurs in one for training.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from lang_agent.text_env.wording import Wording
from lang_agent.words import slot

from . import held_out
from .minigrid import PHRASES
from .minigrid_words import FRENCH

NOUNS = ("ball", "box", "key")
COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
TAKEN = {*COLORS, *FRENCH.values(), *" ".join(PHRASES).split()}
ONSETS = (
    *"bcdfghjklmnprstvwyz", "bl", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr", "pl", "pr",
    "qu", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "squ", "st", "str", "sw", "th", "tr", "tw",
)  # fmt: skip
VOWELS = (*"aeiou", *"aeiou", "ai", "ea", "ee", "oa", "oo", "ou")
CODAS = (
    *([""] * 12), *"bdfgklmnprstxz", "ck", "ft", "ld", "ll", "mp", "nd", "ng", "nk", "nt", "rk",
    "rn", "rt", "sh", "ss", "st", "th",
)  # fmt: skip


def varied(rng: np.random.Generator) -> Wording:
    """For training: nouns and colours invented for the episode, each in three of four episodes."""
    words = {
        word: _invented(rng)
        for own in (NOUNS, COLORS)
        if rng.random() < 0.75
        for word in own
        if rng.random() < 0.8
    }
    return Wording(words) if _told_apart(words.values()) else varied(rng)


def phrased(rng: np.random.Generator) -> Wording:
    """For training: phrases of one or two invented words. The two turns mostly share one, and keep
    their sides."""
    phrases = {
        own: " ".join(_invented(rng) for _ in range(int(rng.integers(1, 3))))
        for own in PHRASES
        if rng.random() < 0.85
    }
    if rng.random() < 0.7:
        turn = _invented(rng)
        phrases |= {own: f"{turn} {own.split()[1]}" for own in PHRASES if own.startswith("turn ")}
    return Wording(actions=phrases) if _told_apart(phrases.values()) else phrased(rng)


# Also where phrases alone are new, so that their words are a token each.
varied.names = phrased.names = (*NOUNS, *COLORS)  # type: ignore[attr-defined]


def new_nouns(rng: np.random.Generator) -> Wording:
    """For testing: nouns that were never trained on."""
    return Wording(words=dict(zip(NOUNS, held_out.NOUNS, strict=True)))


def invented(rng: np.random.Generator) -> Wording:
    """For testing: invented nouns and colours."""
    nouns = dict(zip(NOUNS, held_out.INVENTED_NOUNS, strict=True))
    return Wording(words=nouns | dict(zip(COLORS, held_out.INVENTED_COLORS, strict=True)))


def synonyms(rng: np.random.Generator) -> Wording:
    """For testing: other words for every action."""
    return Wording(actions=dict(zip(PHRASES, held_out.PHRASES, strict=True)))


def paraphrased(rng: np.random.Generator) -> Wording:
    """For testing: the same goals, said otherwise."""
    chosen = [(pattern, str(rng.choice(said))) for pattern, said in held_out.PARAPHRASES]
    return Wording(mission=Paraphrase(tuple(chosen)))


@dataclass(frozen=True)
class Paraphrase:
    """Says a mission of MixedLocal in other words, the outermost first."""

    chosen: tuple[tuple[str, str], ...]

    def __call__(self, mission: str) -> str:
        for pattern, said in reversed(self.chosen):
            mission = re.sub(pattern, said, mission)
        return mission


FRENCH_ACTIONS = (
    "tourner à gauche", "tourner à droite", "avancer", "ramasser", "poser", "actionner",
)  # fmt: skip
FRENCH_MISSIONS = (  # in this order: the things first, then what is done with them, then when
    (r"\b(the|an?) (?:(red|green|blue|purple|yellow|grey) )?(key|ball|box|door|object|room)\b",
     None),
    (r"the (\w+) goal square", None),
    (r" in front of you", " devant toi"),
    (r" behind you", " derrière toi"),
    (r" on your left", " à ta gauche"),
    (r" on your right", " à ta droite"),
    (r"use (.*) to open (.*) and then get to the goal",
     r"avec \1 ouvrir \2, puis atteindre le but"),
    (r"get (.*) from (.*), unlock (.*) and go to the goal",
     r"prendre \1 dans \2, déverrouiller \3 et aller au but"),
    (r"avoid the lava and get to ", "éviter la lave et atteindre "),
    (r"find the opening and get to ", "trouver l'ouverture et atteindre "),
    (r"traverse the rooms to get to the goal", "traverser les pièces pour atteindre le but"),
    (r"reach the goal", "atteindre le but"),
    (r"go to the matching object at the end of the hallway",
     "aller à l'objet pareil au bout du couloir"),
    (r"get to ", "atteindre "),
    (r"(?:you must |go )?(?:fetch|get) (?=une? )", "aller chercher "),
    (r"put (.*?) next to (.*?)(?=,| and | after |$)", r"mettre \1 à côté de \2"),
    (r"put (.*) near (.*)", r"mettre \1 près de \2"),
    (r"(.*) after you (.*)", r"\1 après avoir fait ceci : \2"),
    (r", then ", ", puis "),
    (r" then ", " puis "),
    (r" and ", " et "),
    (r"go to ", "aller à "),
    (r"pick up ", "ramasser "),
    (r"open ", "ouvrir "),
)  # fmt: skip
FRENCH_TEMPLATE = {
    "Goal:": "But :", "Actions:": "Actions :", "See:": "Vue :", "Action:": "Action :",
    "Did:": "Actions faites :", " (in vain)": " (en vain)", "Say:": "Dire :",
}  # fmt: skip
MASCULINE = {"verte": "vert", "bleue": "bleu", "violette": "violet", "grise": "gris"}


def french(rng: np.random.Generator) -> Wording:
    """Goal, phrases and the prompt's own words in French, for every level of minigrid and BabyAI;
    what is seen is said by the renderer of that language (``babyai_fr``, ``rooms_fr``)."""
    actions = dict(zip(PHRASES, FRENCH_ACTIONS, strict=True))
    return Wording(actions=actions, mission=in_french, translations=FRENCH_TEMPLATE)


french.names = tuple(FRENCH[word] for word in (*NOUNS, *COLORS))  # type: ignore[attr-defined]
french.language = "fr"  # type: ignore[attr-defined]


def in_french(mission: str) -> str:
    """A mission of minigrid's or BabyAI's levels in French."""
    for pattern, said in FRENCH_MISSIONS:
        mission = re.sub(pattern, _thing_in_french if said is None else said, mission)
    return mission


def _thing_in_french(found: re.Match[str]) -> str:
    if found[0].endswith("goal square"):
        return f"la case {FRENCH[found[1]]} du but"
    color = f" {FRENCH[found[2]]}" if found[2] else ""
    if found[3] == "object":
        color = f" {MASCULINE.get(color[1:], color[1:])}" if color else ""
        return ("l'objet" if found[1] == "the" else "un objet") + color
    noun = FRENCH.get(found[3], "pièce")
    return f"{'la' if found[1] == 'the' else 'une'} {noun}{color}"


def _told_apart(words: Collection[str]) -> bool:
    """Whether no two words would be read as one."""
    return len({slot(word) for word in words}) == len(words)


def _invented(rng: np.random.Generator) -> str:
    """A word of two or three syllables that no test and no world has."""
    word = "".join(
        str(rng.choice(part))
        for _ in range(int(rng.integers(2, 4)))
        for part in (ONSETS, VOWELS, CODAS)
    )
    return _invented(rng) if word in held_out.WORDS or word in TAKEN else word
