"""Which of two agents is better, on the same tasks and seeds; and a leaderboard of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lang_agent.errors import LangAgentError
from lang_agent.evaluation import statistics
from lang_agent.evaluation.records import Record, Results, first_difference
from lang_agent.evaluation.summary import wilson

PATHS = ((1, 5), (6, 10), (11, 20), (21, 40), (41, 10**9))
"""Classes of how many steps the expert takes."""


@dataclass(frozen=True)
class Difference:
    """The first agent less the second, on the episodes that both have played."""

    what: str
    """all, or a kind of episode: ``task goto``, ``verb open``."""
    measure: str
    """success, return or progression."""
    episodes: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    """A 95% interval of the difference."""
    p: float
    """That they are alike: McNemar's exact test for success, a permutation test for the others."""
    corrected: float = 1.0
    """p by Holm, for all rows of one kind (all tasks, all verbs) together."""


@dataclass(frozen=True)
class Comparison:
    """Two agents on one panel."""

    first: str
    second: str
    rows: tuple[Difference, ...]
    apart: tuple[tuple[str, int, str], ...]
    """(task, seed, who succeeded) wherever one of them alone did."""
    missing: int
    """Episodes that one of them has not played."""


def check_panels(results: Sequence[Results]) -> None:
    """Raise :class:`LangAgentError` unless all results are of one panel, with what differs."""
    first = results[0]
    for other in results[1:]:
        if other.spec.panel == first.spec.panel:
            continue
        keys = ("tasks", "first_seed", "episodes")
        mine, theirs = other.spec.as_data(), first.spec.as_data()
        difference = first_difference(
            {key: mine[key] for key in keys}, {key: theirs[key] for key in keys}
        )
        raise LangAgentError(
            f"'{other.folder}' and '{first.folder}' are of two panels, {other.spec.panel} and "
            f"{first.spec.panel}, and cannot be compared: "
            f"{difference.replace(' and was ', ', not ')}."
        )


def compare(first: Results, second: Results) -> Comparison:
    """Two agents, episode by episode; raises :class:`LangAgentError` for two panels."""
    check_panels([first, second])
    ours = {record.place: record for record in first.records}
    theirs = {record.place: record for record in second.records}
    pairs = [(ours[place], theirs[place]) for place in ours if place in theirs]
    if not pairs:
        raise LangAgentError(f"'{first.folder}' and '{second.folder}' have no episode in common.")
    rows = [_difference("all", "success", pairs), _difference("all", "return", pairs)]
    if any(record.progression not in (0.0, 1.0) for pair in pairs for record in pair):
        rows.append(_difference("all", "progression", pairs))
    for kind, named in KINDS.items():
        found = [_difference(f"{kind} {name}", "success", some) for name, some in
                 _groups(pairs, named)]  # fmt: skip
        if len(found) > 1:
            p_values = statistics.holm([row.p for row in found])
            rows += [replace(row, corrected=p) for row, p in zip(found, p_values, strict=True)]
    apart = [
        (one.task, one.seed, first.name if one.success else second.name)
        for one, other in pairs
        if one.success != other.success
    ]
    missing = len({*ours, *theirs}) - len(pairs)
    return Comparison(first.name, second.name, tuple(rows), tuple(apart), missing)


Pair = tuple[Record, Record]


def _path_class(record: Record) -> Sequence[str]:
    steps = record.expert_steps
    if not steps:
        return ()
    low, high = next(bounds for bounds in PATHS if bounds[0] <= steps <= bounds[1])
    return (f"{low} to {high} steps" if high < 10**9 else f"{low} steps or more",)


KINDS: dict[str, Callable[[Record], Sequence[str]]] = {
    "task": lambda record: (record.task,),
    "verb": lambda record: _parts(record.verb),
    "object": lambda record: _parts(record.object),
    "colour": lambda record: _parts(record.colour),
    "parts": lambda record: (str(record.parts),) if record.parts else (),
    "path": _path_class,
}
"""By what episodes are grouped: the groups of each; one of several parts is in those of all."""


def _parts(said: str) -> Sequence[str]:
    return tuple(dict.fromkeys(said.split(", "))) if said else ()


def _groups(
    pairs: Sequence[Pair], named: Callable[[Record], Sequence[str]]
) -> Iterator[tuple[str, list[Pair]]]:
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        for name in named(pair[0]) or named(pair[1]):
            groups.setdefault(name, []).append(pair)
    # Lengths and counts from the least on; what is no number, as it was played.
    yield from sorted(groups.items(), key=lambda group: _number(group[0]))


def _number(name: str) -> int:
    first = name.partition(" ")[0]
    return int(first) if first.isdigit() else 0


def _difference(what: str, measure: str, pairs: Sequence[Pair]) -> Difference:
    count = len(pairs)
    if measure == "success":
        ours, theirs = (sum(pair[i].success for pair in pairs) / count for i in (0, 1))
        one = sum(a.success and not b.success for a, b in pairs)
        other = sum(b.success and not a.success for a, b in pairs)
        low, high = statistics.paired_share(one, other, count)
        p = statistics.mcnemar(one, other)
    else:
        name = "total_reward" if measure == "return" else measure
        values = [(getattr(a, name), getattr(b, name)) for a, b in pairs]
        ours, theirs = (float(np.mean([value[i] for value in values])) for i in (0, 1))
        differences = [a - b for a, b in values]
        low, high = statistics.mean_interval(differences)
        p = statistics.permutation(differences)
    return Difference(what, measure, count, ours, theirs, ours - theirs, low, high, p, p)


@dataclass(frozen=True)
class Standing:
    """A row of a leaderboard: an agent, or a recipe by its training seeds."""

    name: str
    runs: int
    """Training seeds."""
    episodes: int
    """Of each run."""
    progression: float
    low: float
    high: float
    """A 95% interval of the progression: of one run over its episodes, of several over the runs."""
    success: float
    mean_return: float
    invalid_rate: float
    tokens_read: int
    tokens_written: int
    interquartile: float | None = None
    """The interquartile mean of the tasks' progressions over several runs, and its interval."""
    interquartile_low: float | None = None
    interquartile_high: float | None = None


def standing(runs: Sequence[Results]) -> Standing:
    """One agent, or several training seeds of one recipe, on a panel."""
    check_panels(runs)
    for run in runs:
        if not run.records:
            raise LangAgentError(f"'{run.folder}' has no episodes yet.")
    records = [record for run in runs for record in run.records]
    progressions = [record.progression for record in records]
    if len(runs) > 1:
        means = [float(np.mean([record.progression for record in run.records])) for run in runs]
        low, high = statistics.mean_interval(means)
    elif {*progressions} <= {0.0, 1.0}:
        low, high = wilson(int(sum(progressions)), len(progressions))
    else:
        low, high = statistics.mean_interval(progressions)
    steps = sum(record.steps for record in records)
    row = Standing(
        name=runs[0].name,
        runs=len(runs),
        episodes=len(runs[0].records),
        progression=float(np.mean(progressions)),
        low=max(low, 0.0),
        high=min(high, 1.0),
        success=float(np.mean([record.success for record in records])),
        mean_return=float(np.mean([record.total_reward for record in records])),
        invalid_rate=sum(record.invalid_actions for record in records) / max(steps, 1),
        tokens_read=sum(record.tokens_read for record in records),
        tokens_written=sum(record.tokens_written for record in records),
    )
    if len(runs) == 1:
        return row
    scores = by_task(runs)
    between = statistics.stratified_bootstrap(scores)
    return replace(
        row,
        interquartile=statistics.interquartile_mean(scores),
        interquartile_low=between[0],
        interquartile_high=between[1],
    )


def by_task(runs: Sequence[Results]) -> np.ndarray:
    """(runs, tasks) mean progressions of the tasks that every run has played."""
    tasks = [
        task.name for task in runs[0].spec.tasks if all(run.of_task(task.name) for run in runs)
    ]
    return np.array(
        [
            [np.mean([record.progression for record in run.of_task(name)]) for name in tasks]
            for run in runs
        ]
    )


def leaderboard(groups: Sequence[Sequence[Results]]) -> list[Standing]:
    """Agents on one panel, the best first."""
    check_panels([run for group in groups for run in group])
    return sorted(map(standing, groups), key=lambda row: -row.progression)
