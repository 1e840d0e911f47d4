"""The episodes of a report as plain data, as the page reads them.

``agents``    label, name and group (the run that it is a moment of) of each
``phrases``   the lists of admissible phrases, each once
``episodes``  of each: ``agent`` and its record's fields (``task``, ``seed``, ``success``, ...), and
              where steps were kept ``steps`` and ``end`` as in
              :mod:`lang_agent.evaluation.trajectories`, with these differences: ``actions`` is a
              number in ``phrases``, and what is empty or nought is left out; ``explained`` has
              [first character, last, change] of what moved the choice (:mod:`.explain`)
"""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lang_agent.report.explain import Explained
from lang_agent.report.sources import Agent

DIGITS = 4  # of probabilities and values: what a bar shows


def shown_places(agents: Sequence[Agent], most: int) -> dict[str, list[tuple[str, int]]]:
    """Panel -> the tasks and seeds whose episodes are shown, ``most`` at most: those in which an
    agent failed first, of every task as many."""
    found: dict[str, list[tuple[str, int]]] = {}
    for panel in dict.fromkeys(agent.results.spec.panel for agent in agents):
        records = [
            record
            for agent in agents
            if agent.results.spec.panel == panel
            for record in agent.results.records
        ]
        failed = {record.place for record in records if not record.success}
        played = dict.fromkeys(record.place for record in records)
        tasks: dict[str, list[tuple[str, int]]] = {}
        for place in sorted(played, key=lambda place: place not in failed):
            tasks.setdefault(place[0], []).append(place)
        turns = itertools.zip_longest(*tasks.values())
        chosen = {*[place for turn in turns for place in turn if place is not None][:most]}
        found[panel] = [place for place in played if place in chosen]
    return found


def as_data(
    agents: Sequence[Agent], most: int, explained: Mapping[tuple[str, str, int, int], Explained]
) -> dict[str, Any]:
    """The episodes of the agents, those on each panel's :func:`shown_places`."""
    phrases: dict[tuple[str, ...], int] = {}
    places = shown_places(agents, most)
    episodes = []
    for number, agent in enumerate(agents):
        records = {record.place: record for record in agent.results.records}
        for place in places[agent.results.spec.panel]:
            if place not in records:
                continue
            fields = {name: value for name, value in asdict(records[place]).items() if value}
            episode = {"agent": number, **fields, "seed": place[1]}
            trajectory = agent.trajectories.get(place)
            if trajectory is not None:
                why = {
                    step: found
                    for step in range(len(trajectory["steps"]))
                    if (found := explained.get((agent.label, *place, step))) is not None
                }
                episode["trajectory"] = _trajectory(trajectory, phrases, why)
            episodes.append(episode)
    return {
        "agents": [
            {"label": agent.label, "group": agent.group, "panel": agent.results.spec.panel}
            for agent in agents
        ],
        "phrases": [list(one) for one in phrases],
        "episodes": episodes,
    }


def _trajectory(
    trajectory: Mapping[str, Any],
    phrases: dict[tuple[str, ...], int],
    explained: Mapping[int, Explained],
) -> dict[str, Any]:
    steps = []
    for number, step in enumerate(trajectory["steps"]):
        kept = {name: value for name, value in step.items() if value or name in ("kept", "new")}
        if step.get("actions") is not None:
            actions = tuple(step["actions"])
            kept["actions"] = phrases.setdefault(actions, len(phrases))
        if step.get("probabilities"):
            kept["probabilities"] = [round(p, DIGITS) for p in step["probabilities"]]
        if step.get("value") is not None:
            kept["value"] = round(step["value"], DIGITS)
        if number in explained:
            kept["explained"] = [
                [one.begin, one.end, round(one.change, DIGITS)] for one in explained[number]
            ]
        steps.append(kept)
    return {"steps": steps, "end": trajectory.get("end")}


def packed(data: Any) -> str:
    """Plain data as compressed JSON in base64: nothing in it can end a tag of the page."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode()
