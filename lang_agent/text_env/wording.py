"""Other words for the same world: what is read and said can be renamed, for an episode at a time.

A policy that has only ever read "ball" and said "turn left" knows those words, not what they stand
for. Renaming them, differently in every episode, teaches it to read; renaming them to words it
never met tells whether it can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lang_agent.errors import LangAgentError


@dataclass(frozen=True)
class Wording:
    """New words for the world's own."""

    words: Mapping[str, str] = field(default_factory=dict)
    """Whole words of the mission, the descriptions and the things -> what is written instead."""
    actions: Mapping[str, str] = field(default_factory=dict)
    """The world's phrases -> what is said instead; phrases not named stay."""
    mission: Callable[[str], str] | None = None
    """Applied to the mission before its words are replaced."""
    translations: Mapping[str, str] = field(default_factory=dict)
    """A template's own words, as in ``{{ "Goal:" | translate }}`` -> what is written instead."""

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A renderer's fields in these words."""
        changed = dict(fields)
        if self.mission is not None:
            changed["mission"] = self.mission(changed["mission"])
        if self.words:
            for name in ("mission", "descriptions", "things"):
                if name in changed:
                    changed[name] = self._reword(changed[name])
        if "actions" in changed:
            changed["actions"] = tuple(self.actions.get(name, name) for name in fields["actions"])
        if self.translations:
            changed["translations"] = dict(self.translations)
        return changed

    def phrases(self, phrases: Mapping[str, Any]) -> dict[str, Any]:
        """Phrase -> environment action, in these words and the same order."""
        renamed = {self.actions.get(name, name): action for name, action in phrases.items()}
        if len(renamed) < len(phrases):
            raise LangAgentError(
                f"The wording gives one name to different actions: {dict(self.actions)}."
            )
        return renamed

    def _reword(self, text: Any) -> Any:
        if isinstance(text, Mapping):
            return {name: self._reword(value) for name, value in text.items()}
        if not isinstance(text, (str, list, tuple)):
            return text
        if not isinstance(text, str):
            return [self._reword(line) for line in text]
        return re.sub(r"\w+", lambda found: self.words.get(found[0], found[0]), text)


Wordings = Callable[[np.random.Generator], Wording]
"""Draws the wording of an episode. Its attribute ``names``, where it has one, lists the words that
are renamed: a tokenizer made for it gives each name, known or not, one token. Its attribute
``language`` ("fr"), where it has one, chooses the renderer of that language: of ``babyai``, that
is ``babyai_fr``."""
