"""Other words for a world from a file: data, in place of a function.

A YAML file with any of::

    words: {ball: sphere, red: crimson}          # whole words, of the mission and of what is seen
    actions: {turn left: rotate left}            # the world's phrases
    missions:                                    # the first that fits says it; * is any words
      - ["go to *", ["walk over to {1}", "find {1}"]]
      - ["put * next to *", ["bring {1} beside {2}"]]
    translations: {"Goal:": "Task:"}             # what a template says by itself

Of several ways to say a mission one is drawn for every episode. A mission that none fits stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lang_agent.config import load_config
from lang_agent.errors import LangAgentError, shown
from lang_agent.text_env.wording import Wording

SUFFIXES = (".yaml", ".yml")
MOST_STARS = 4
"""Of a pattern: what more of them match takes long to find out."""
_PLACE = re.compile(r"\{(\d)\}")


@dataclass(frozen=True)
class WordingFile:
    """Wordings as a file holds them; it is called for that of an episode."""

    words: dict = field(default_factory=dict)
    actions: dict = field(default_factory=dict)
    missions: list = field(default_factory=list)
    translations: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("words", "actions", "translations"):
            for key, value in getattr(self, name).items():
                if not (isinstance(key, str) and isinstance(value, str) and value.strip()):
                    raise LangAgentError(
                        f"{name}: {shown(key)}: {shown(value)} must be a text and what is said in "
                        "its place."
                    )
        for entry in self.missions:
            _check(entry)

    @property
    def names(self) -> tuple[str, ...]:
        """The words that others take the place of."""
        return tuple(self.words)

    def __call__(self, generator: np.random.Generator) -> Wording:
        chosen = tuple(
            (pattern, ways[int(generator.integers(len(ways)))]) for pattern, ways in self.missions
        )
        mission = Said(chosen) if chosen else None
        return Wording(self.words, self.actions, mission, self.translations)


@dataclass(frozen=True)
class Said:
    """Says a mission as the first pattern that fits has it."""

    chosen: tuple[tuple[str, str], ...]

    def __call__(self, mission: str) -> str:
        for pattern, way in self.chosen:
            found = _compiled(pattern).fullmatch(mission)
            if found is not None:
                parts = found.groups()
                return _PLACE.sub(lambda place: parts[int(place[1]) - 1], way)  # noqa: B023
        return mission


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(map(re.escape, pattern.split("*"))))


def _check(entry: object) -> None:
    """Raise :class:`LangAgentError` for what is no ["pattern", ["way to say it", ...]]."""
    good = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)
    ways = entry[1] if good and isinstance(entry, list) else None
    if not isinstance(ways, list) or not ways or not all(isinstance(way, str) for way in ways):
        raise LangAgentError(
            f'missions: {shown(entry)} must read ["go to *", ["walk over to {{1}}", ...]].'
        )
    assert isinstance(entry, list)
    stars = entry[0].count("*")
    if stars > MOST_STARS:
        raise LangAgentError(f"missions: {shown(entry[0])} has more than {MOST_STARS} stars.")
    for way in ways:
        wrong = [number for number in _PLACE.findall(way) if not 1 <= int(number) <= stars]
        if wrong:
            raise LangAgentError(
                f"missions: {shown(way)} names {{{wrong[0]}}}, and {shown(entry[0])} has {stars} "
                "stars."
            )


def load_wording(path: str | Path) -> WordingFile:
    """The wordings in a file; raises :class:`LangAgentError` for one that holds none."""
    return load_config(path, WordingFile, trust=True)  # it names nothing that is imported


def is_wording_file(name: object) -> bool:
    return isinstance(name, str) and Path(name).suffix in SUFFIXES
