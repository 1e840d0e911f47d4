"""What episodes come to: a row for each task, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import binomtest

from lang_agent.evaluation.records import Record, Spec

ALL = "(all)"
"""What the row over several tasks is called."""


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one task, summed up."""

    task: str
    episodes: int
    success: float
    success_low: float  # Wilson 95% interval
    success_high: float
    mean_return: float  # undiscounted
    mean_length: float  # steps
    invalid_rate: float  # invalid actions a step
    progression: float = 0.0  # mean; what the world says of each episode, or its success
    env_errors: int = 0  # episodes that the environment's exceptions have ended
    tokens_read: int = 0  # by all episodes together
    tokens_written: int = 0


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The Wilson score interval at 95% (Wilson 1927)."""
    interval = binomtest(successes, episodes).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def summarise(task: str, records: Sequence[Record]) -> Evaluation:
    """The :class:`Evaluation` of at least one episode. One that an environment's error has ended is
    a failure without steps, and no part of the mean length."""
    count, successes = len(records), sum(record.success for record in records)
    low, high = wilson(successes, count)
    steps = sum(record.steps for record in records)
    played = sum(not record.error for record in records)
    return Evaluation(
        task=task,
        episodes=count,
        success=successes / count,
        success_low=low,
        success_high=high,
        mean_return=sum(record.total_reward for record in records) / count,
        mean_length=steps / max(played, 1),
        invalid_rate=sum(record.invalid_actions for record in records) / max(steps, 1),
        progression=sum(record.progression for record in records) / count,
        env_errors=count - played,
        tokens_read=sum(record.tokens_read for record in records),
        tokens_written=sum(record.tokens_written for record in records),
    )


def with_parts(task: str, records: Sequence[Record]) -> list[Evaluation]:
    """A task's row, if there is one, and where its episodes are of several parts (of a mixture, of
    a level that draws its kind of task) a row for each, called by the part."""
    if not records:
        return []
    parts = sorted({record.part for record in records if not record.error})
    of = {part: [record for record in records if record.part == part] for part in parts}
    rows = [summarise(part, found) for part, found in of.items()]
    return [summarise(task, records), *(rows if len(rows) > 1 else [])]


def summarise_all(spec: Spec, records: Sequence[Record]) -> list[Evaluation]:
    """A row for each task that was played, and one over all where there are several."""
    by_task = {task.name: [r for r in records if r.task == task.name] for task in spec.tasks}
    rows = [summarise(name, found) for name, found in by_task.items() if found]
    return [*rows, summarise(ALL, records)] if len(rows) > 1 else rows


@dataclass(frozen=True)
class FamilyMean:
    """How far the episodes of a family's tasks came, as a share of 1."""

    family: str
    episodes: int
    progression: float
    """Their mean."""
    standard_error: float
    """The population's deviation over the root of their number."""
    so_far: float
    """The mean with the progress of episodes that were cut off, where the other is without."""


def family_means(spec: Spec, records: Sequence[Record]) -> list[FamilyMean]:
    """A mean for every family that has episodes: all of them count alike, whatever their task
    (as BALROG does it; Paglieri et al. 2024, arXiv 2411.13543)."""
    means = []
    for family in spec.families:
        found = [record for record in records if record.task in family.tasks]
        if found:
            reached = [record.progression for record in found]
            counted = [0.0 if family.only_ended and not record.terminated else record.progression
                       for record in found]  # fmt: skip
            mean, error = mean_and_error(counted)
            means.append(FamilyMean(family.name, len(found), mean, error, float(np.mean(reached))))
    return means


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the population's deviation over the root of the number."""
    return float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))


def mean_of_families(means: Sequence[FamilyMean]) -> tuple[float, float]:
    """The mean of at least one family's means, and its standard error: the root of the sum of
    their squares over the number of families."""
    errors = [mean.standard_error for mean in means]
    middle = float(np.mean([mean.progression for mean in means]))
    return middle, float(np.sqrt(np.sum(np.square(errors))) / len(errors))


def as_families(spec: Spec, records: Sequence[Record]) -> dict[str, object]:
    """The families' means as plain data, and their mean; nothing where there are no families."""
    means = family_means(spec, records)
    if not means:
        return {}
    progression, error = mean_of_families(means)
    overall = {"families": len(means), "progression": progression, "standard_error": error}
    return {"progress": {"families": [asdict(mean) for mean in means], "overall": overall}}


COLUMNS = (
    ("episodes", 8), ("success", 7), ("95% CI", 11), ("return", 6), ("steps", 5), ("invalid", 7),
)  # fmt: skip


def cells(row: Evaluation) -> list[str]:
    """A row's entries under :data:`COLUMNS`."""
    return [
        str(row.episodes),
        f"{row.success:.3f}",
        f"{row.success_low:.3f}-{row.success_high:.3f}",
        f"{row.mean_return:.3f}",
        f"{row.mean_length:.1f}",
        f"{row.invalid_rate:.1%}",
    ]


def as_table(evaluations: Sequence[Evaluation], title: str = "", width: int = 80) -> str:
    """The evaluations as a table in ``width`` columns; a name that does not fit has a line of its
    own, so that nothing is cut off."""
    failed = any(row.env_errors for row in evaluations)
    columns = (*COLUMNS, ("errors", 6)) if failed else COLUMNS
    rows: list[tuple[str, Sequence[str]]] = [("task", [name for name, _ in columns])]
    shown = ""
    for row in evaluations:
        env_id, _, task = row.task.partition(" ")
        if task and env_id != shown:  # an environment's tasks stand below it
            rows.append((env_id, ()))
            shown = env_id
        errors = [str(row.env_errors)] if failed else []
        rows.append((f"  {task}" if task else env_id, [*cells(row), *errors]))
    lines = columned(rows, [size for _, size in columns], width)
    return "\n".join([title, *lines] if title else lines)


def columned(
    rows: Sequence[tuple[str, Sequence[str]]], sizes: Sequence[int] = (), width: int = 80
) -> list[str]:
    """Rows of a name and entries as lines of ``width`` columns: names to the left, entries to the
    right. A name that does not fit has a line of its own, so that nothing is cut off.

    Args:
        sizes: the least width of each entry.
    """
    widest = max(len(entries) for _, entries in rows)
    least = [*sizes, *(0 for _ in range(widest - len(sizes)))]
    sizes = [max([least[at], *(len(e[at]) for _, e in rows if len(e) > at)])
             for at in range(widest)]  # fmt: skip
    room = max(width - sum(size + 1 for size in sizes), 4)
    longest = max([len(name) for name, entries in rows if entries and len(name) <= room])
    lines = []
    for name, entries in rows:
        if len(name) > longest:
            lines.append(name)
            name = ""
        line = "".join(f" {e:>{size}}" for e, size in zip(entries, sizes, strict=False))
        lines += [f"{name:<{longest}}{line}".rstrip()] if name or line else []
    return lines


def as_json(evaluations: Sequence[Evaluation]) -> list[dict[str, object]]:
    """The evaluations as plain data."""
    return [asdict(row) for row in evaluations]
