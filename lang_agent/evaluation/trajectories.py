"""What an agent read, might have said and said, step by step, as plain data.

One object an episode: ``task``, ``seed``, ``steps``, and in ``end`` the grid after the last step. A
step has

``kept``, ``new``    the prompt: so many characters of the one before it, and then this text
``actions``          the admissible phrases, or null where any text is an action
``probabilities``    of each of them, where they were weighed
``action``           what was said
``verdict``          how it was understood (exact, contained, near, invalid), and ``reason``
``reward``
``value``            a critic's, else null
``expert``           the phrase of the world's expert, else null
``written``          of a written answer each token's ``text`` and ``log_prob``
``cells``            the grid before the step: at first whole (:attr:`LanguageEnv.cells`), then what
                     has changed, with ``changed``: [cell, type, colour, state] for each; else null
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lang_agent.episode import Agent, Decision, Episode, Step, TextObservation
from lang_agent.errors import shown
from lang_agent.evaluation.records import TRAJECTORIES_FILE, read_lines
from lang_agent.files import tell

Cells = Mapping[str, Any] | None


def as_data(task: str, episode: Episode, cells: Sequence[Cells], agent: Agent) -> dict[str, Any]:
    """An episode as plain data.

    Args:
        cells: the grid before each step and after the last.
        agent: who played it, for what its tokens say.
    """
    steps = []
    before = ""
    drawn = changes(cells)
    for step, grid in zip(episode.steps, drawn, strict=False):
        prompt = step.observation.prompt
        kept = _common(before, prompt)
        steps.append({"kept": kept, "new": prompt[kept:], **_step(step, agent), "cells": grid})
        before = prompt
    end = drawn[len(steps)] if len(drawn) > len(steps) else None
    return {"task": task, "seed": episode.seed, "steps": steps, "end": end}


def _step(step: Step, agent: Agent) -> dict[str, Any]:
    seen, decision = step.observation, step.decision
    phrases = None if seen.actions is None else list(seen.actions)
    return {
        "actions": phrases,
        "probabilities": [round(p, 6) for p in decision.probabilities],
        "action": decision.action,
        "verdict": step.info.get("verdict"),
        "reason": step.info.get("reason", ""),
        "reward": step.reward,
        "value": None if decision.tokens is None else round(decision.tokens.value, 6),
        "expert": seen.expert,
        "written": _written(decision, agent),
    }


def _written(decision: Decision, agent: Agent) -> list[dict[str, Any]]:
    trace = decision.tokens
    if trace is None or not trace.token_ids:
        return []
    texts = agent.token_texts(trace.token_ids)
    return [
        {"text": text, "log_prob": round(log_prob, 6)}
        for text, log_prob in zip(texts, trace.log_probs, strict=False)
    ]


def prompts(trajectory: Mapping[str, Any]) -> list[str]:
    """The prompts of an episode, put together again."""
    found, before = [], ""
    for step in trajectory["steps"]:
        before = before[: step["kept"]] + step["new"]
        found.append(before)
    return found


def as_episode(trajectory: Mapping[str, Any], success: bool) -> Episode:
    """An episode as it was stored, without what only its environment knows.

    Raises KeyError, TypeError or ValueError for what is no trajectory.
    """
    episode = Episode(0, int(trajectory["seed"]), terminated=True)
    for prompt, step in zip(prompts(trajectory), trajectory["steps"], strict=True):
        phrases = step["actions"]
        seen = TextObservation(
            prompt, None if phrases is None else tuple(phrases), expert=step["expert"]
        )
        info = {"verdict": step["verdict"], "reason": step["reason"]}
        episode.steps.append(Step(seen, Decision(str(step["action"])), float(step["reward"]), info))
    episode.steps[-1].info["success"] = success
    return episode


def read_trajectories(folder: Path) -> list[Mapping[str, Any]]:
    """The episodes that a folder of results holds step by step; damaged ones are left out with a
    warning."""
    file, found = folder / TRAJECTORIES_FILE, []
    for number, data in read_lines(file):
        try:
            check(data)
            found.append(data)
        except ValueError as error:
            tell(f"'{file}', line {number}, is left out: {error}.")
    return found


def check(data: Any) -> None:
    """Raise ValueError, with what is wrong, for data that is no episode as :func:`as_data` writes
    it."""
    _is(data, Mapping, "an episode")
    _is(data.get("task"), str, "task")
    _is(data.get("seed"), int, "seed")
    steps = data.get("steps")
    _is(steps, list, "steps")
    for at, step in enumerate(steps):
        try:
            _check_step(step)
            _check_cells(step.get("cells"))
        except ValueError as error:
            raise ValueError(f"step {at}: {error}") from None
    _check_cells(data.get("end"))


def _check_step(step: Any) -> None:
    _is(step, Mapping, "a step")
    _is(step.get("kept"), int, "kept")
    if step["kept"] < 0:
        raise ValueError(f"kept is {step['kept']}")
    for name in ("new", "action", "reason"):
        _is(step.get(name), str, name)
    for name in ("verdict", "expert"):
        _is(step.get(name), (str, type(None)), name)
    _check_number(step.get("reward"), "reward")
    if step.get("value") is not None:
        _check_number(step["value"], "value")
    phrases = step.get("actions")
    _is(phrases, (list, type(None)), "actions")
    for phrase in phrases or ():
        _is(phrase, str, "a phrase")
    _is(step.get("probabilities"), list, "probabilities")
    for probability in step["probabilities"]:
        _check_number(probability, "a probability")
    if len(step["probabilities"]) not in (0, len(phrases or ())):
        raise ValueError(f"{len(step['probabilities'])} probabilities of {len(phrases or ())}")
    _is(step.get("written"), list, "written")
    for token in step["written"]:
        _is(token, Mapping, "a token")
        _is(token.get("text"), str, "a token's text")
        _check_number(token.get("log_prob"), "a token's log_prob")


def _check_cells(cells: Any) -> None:
    if cells is None:
        return
    _is(cells, Mapping, "cells")
    carrying = cells.get("carrying")
    lists = [(cells.get("agent"), 3), (carrying, 2)] if carrying else [(cells.get("agent"), 3)]
    if "grid" in cells:
        size = cells.get("size")
        lists.append((size, 2))
        _check_integers(size, 2)
        lists.append((cells["grid"], 3 * size[0] * size[1]))
    else:
        _is(cells.get("changed"), list, "changed")
        lists += [(change, 4) for change in cells["changed"]]
    for numbers, length in lists:
        _check_integers(numbers, length)


def _check_integers(numbers: Any, length: int) -> None:
    whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
    if not whole or len(numbers) != length:
        raise ValueError(f"the grid has {shown(numbers)}, and not {length} integers")


def _check_number(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {shown(value)}")


def _is(value: Any, kind: type | tuple[type, ...], name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise ValueError(f"{name} is {shown(value)}")


def changes(cells: Sequence[Cells]) -> list[Cells]:
    """Grids of three integers a cell, the first whole and of the others what has changed."""
    found: list[Cells] = []
    before: Cells = None
    for now in cells:
        if now is None or before is None or now["size"] != before["size"]:
            found.append(now)
        else:
            rest = {name: value for name, value in now.items() if name not in ("size", "grid")}
            found.append({**rest, "changed": _changed(before["grid"], now["grid"])})
        before = now
    return found


def _changed(before: Sequence[int], now: Sequence[int]) -> list[list[int]]:
    return [
        [at // 3, *now[at : at + 3]]
        for at in range(0, len(now), 3)
        if now[at : at + 3] != before[at : at + 3]
    ]


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    if other.startswith(one):
        return len(one)
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
