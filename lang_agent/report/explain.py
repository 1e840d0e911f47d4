"""Which parts of a prompt moved a choice: each is left out in turn, and the agent asked again.

What a part does alone is all that this shows: where two say the same, neither seems to matter.
(Leaving out one part of the input at a time is known as occlusion or ablation: Zeiler and Fergus
2014, arXiv 1311.2901, for pictures; Li, Monroe and Jurafsky 2016, arXiv 1612.08220, for words.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lang_agent.episode import Agent as Player
from lang_agent.episode import TextObservation
from lang_agent.evaluation.trajectories import prompts
from lang_agent.report.sources import Agent

MOST_STEPS = 200
CLOSE = 0.2  # between the two likeliest phrases
MOST_PARTS = 40  # of a prompt: the last ones, and the first, which often says the goal
CUE_WORDS = 2
_PART = re.compile(r".*?(?:[,;.]\s|\n)|.+", re.DOTALL)
ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Moved:
    """A part of a prompt, and what it does to the choice."""

    begin: int
    end: int
    """Its characters in the prompt."""
    change: float
    """The probability of what was said, less that without it."""


Explained = Sequence[Moved]


def steps_to_explain(
    agent: Agent, places: Sequence[tuple[str, int]], most: int
) -> list[tuple[tuple[str, int], int]]:
    """(place, step) of choices that were close, or not the expert's: those of failed episodes
    first, the wrong ones before the close ones, and of every episode its first before its second.
    """
    failed = {record.place for record in agent.results.records if not record.success}
    found = []
    for place in places:
        trajectory = agent.trajectories.get(place)
        counts: Counter[bool] = Counter()
        for number, step in enumerate(trajectory["steps"] if trajectory else ()):
            chances = sorted(step.get("probabilities") or (), reverse=True)
            if len(chances) < 2 or step["action"] not in step["actions"]:
                continue
            right = step.get("expert") in (None, step["action"])
            if not right or chances[0] - chances[1] < CLOSE:
                found.append((place not in failed, right, counts[right], place, number))
                counts[right] += 1
    ordered = sorted(found, key=lambda one: one[:3])
    return [(place, number) for *_, place, number in ordered[:most]]


def explain(
    agent: Agent,
    player: Player,
    wanted: Sequence[tuple[tuple[str, int], int]],
    on_step: Callable[[], object] = lambda: None,
) -> Iterator[tuple[tuple[str, str, int, int], Explained]]:
    """((label, task, seed, step), the parts that moved the choice) of each wanted step.

    Args:
        player: the agent itself, with :data:`ASKED_AT_ONCE` slots.
    """
    texts: dict[tuple[str, int], list[str]] = {}
    for place, number in wanted:
        trajectory = agent.trajectories[place]
        if place not in texts:
            texts[place] = prompts(trajectory)
        yield (
            (agent.label, *place, number),
            _moved(player, texts[place][number], trajectory["steps"][number]),
        )
        on_step()


def _moved(player: Player, prompt: str, step: Mapping[str, Any]) -> Explained:
    actions = tuple(step["actions"])
    at = actions.index(step["action"])
    parts = parts_of(prompt)
    asked = [prompt, *(prompt[:begin] + prompt[end:] for begin, end in parts)]
    chances: list[float] = []
    for first in range(0, len(asked), ASKED_AT_ONCE):
        some = asked[first : first + ASKED_AT_ONCE]
        slots = list(range(len(some)))
        for slot in slots:
            player.begin(slot, 0)
        decisions = player.act(slots, [TextObservation(text, actions) for text in some])
        chances += [list(decision.probabilities)[at] for decision in decisions]
    whole, *without = chances
    return [
        Moved(begin, end, whole - chance)
        for (begin, end), chance in zip(parts, without, strict=True)
    ]


def parts_of(prompt: str) -> list[tuple[int, int]]:
    """Where the parts of a prompt begin and end: its lines, and of those what stands between
    commas, semicolons and full stops; the first and the last ones where there are more than
    :data:`MOST_PARTS`. A last line of a word or two only asks for the answer, and is no part."""
    lines = prompt.splitlines(keepends=True) or [""]
    end = len(prompt) - (len(lines[-1]) if len(lines[-1].split()) <= CUE_WORDS else 0)
    found = [part.span() for part in _PART.finditer(prompt[:end]) if part.group().strip()]
    return found if len(found) <= MOST_PARTS else [found[0], *found[-MOST_PARTS + 1 :]]
