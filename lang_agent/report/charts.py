"""Charts as SVG, drawn here: bars with intervals, and curves of runs. Colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from lang_agent.report.sources import Run
from lang_agent.report.tables import Panel

COLOURS = 8  # of the page; more series begin anew
POINTS = 200  # of a curve


@dataclass(frozen=True)
class Series:
    """Runs of one recipe: a line each, and their mean where there are several."""

    label: str
    lines: Sequence[Sequence[tuple[float, float]]]
    mean: Sequence[tuple[float, float]]
    points: Sequence[tuple[float, float, float, float]]
    """(x, y, low, high) of evaluations."""


def bars(panel: Panel) -> Markup:
    """Success (or progression) of every agent on every task, with 95% intervals."""
    left, width, height, gap = 150, 460, 14, 12
    rows = [
        (task, at, panel.rows[task][agent.label])
        for task in panel.tasks
        for at, agent in enumerate(panel.agents)
        if agent.label in panel.rows[task]
    ]
    total = len(rows) * height + len(panel.tasks) * gap + 26
    parts = []
    y = 4.0
    before = ""
    for task, at, row in rows:
        if task != before:
            y += gap
            parts.append(_text(left - 8, y + 11, _short(task), "end"))
            before = task
        share = row.progression if panel.graded else row.success
        low, high = (share, share) if panel.graded else (row.success_low, row.success_high)
        x = [left + (width - left - 20) * value for value in (share, low, high)]
        middle = y + height / 2 - 1
        parts.append(
            f'<rect class="s{at % COLOURS}" x="{left}" y="{y:.1f}" '
            f'width="{max(x[0] - left, 0.5):.1f}" height="{height - 3}"/>'
        )
        if high > low:
            parts.append(
                f'<path class="whisker" d="M{x[1]:.1f} {middle:.1f}H{x[2]:.1f}'
                f'M{x[1]:.1f} {middle - 4:.1f}v8M{x[2]:.1f} {middle - 4:.1f}v8"/>'
            )
        y += height
    axis = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x_tick = left + (width - left - 20) * tick
        axis.append(f'<path class="grid" d="M{x_tick:.1f} 8V{total - 18}"/>')
        axis.append(_text(x_tick, total - 4, f"{tick:g}", "middle"))
    said = "progression" if panel.graded else "success, with 95% intervals"
    return _svg(width, total, [*axis, *parts], f"Bars of every agent's {said}, task by task")


def curves(runs: Sequence[Run], name: str, label: str) -> Markup:
    """A metric against environment steps: a thin line a run, the mean of a recipe's runs, and the
    evaluations with their 95% intervals."""
    series = [one for one in _series(runs, name) if any(one.lines) or one.points]
    if not series:
        return Markup("")
    known = [point for one in series for line in one.lines for point in line]
    known += [point[:2] for one in series for point in one.points]
    bounds = [bound for one in series for point in one.points for bound in point[2:]]
    far = max(max(x for x, _ in known), 1)
    low = min(0.0, *(y for _, y in known), *bounds)
    high = max(1e-9, *(y for _, y in known), *bounds)
    if name == "success":
        low, high = 0.0, 1.0
    width, height, left, bottom = 440, 250, 48, 34

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - 12) * x / far,
            10 + (height - bottom - 10) * (1 - (y - low) / ((high - low) or 1)),
        )

    def path(line: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*point) for point in line))

    parts = []
    for tick in _ticks(low, high):
        x0, y0 = at(0, tick)
        parts.append(f'<path class="grid" d="M{x0:.1f} {y0:.1f}H{width - 12}"/>')
        parts.append(_text(left - 6, y0 + 4, f"{tick:g}", "end"))
    for tick in _ticks(0, far):
        parts.append(_text(at(tick, low)[0], height - 17, _count(tick), "middle"))
    parts.append(_text(width / 2, height - 4, "environment steps", "middle"))
    for number, one in enumerate(series):
        colour = f"l{number % COLOURS}"
        several = len(one.lines) > 1
        for line in one.lines:
            if line:
                thin = " thin" if several else ""
                parts.append(f'<path class="line {colour}{thin}" d="{path(line)}"/>')
        if several and one.mean:
            parts.append(f'<path class="line {colour}" d="{path(one.mean)}"/>')
        for x, y, below, above in one.points:
            (px, py), (_, top), (_, foot) = at(x, y), at(x, above), at(x, below)
            parts.append(f'<path class="whisker" d="M{px:.1f} {top:.1f}V{foot:.1f}"/>')
            parts.append(f'<circle class="s{number % COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="4"/>')
    ends = ", ".join(f"{one.label}: {one.mean[-1][1]:.2f} at the end" for one in series if one.mean)
    return _svg(width, height, parts, f"{label} against environment steps. {ends}")


def recipes(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """(label, runs) of every recipe: those of one differ in their seeds alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.recipe if run.config else str(run.folder), []).append(run)
    return [(_recipe(group), group) for group in groups.values()]


def _recipe(runs: Sequence[Run]) -> str:
    others = f" and {len(runs) - 1} more seeds" if len(runs) > 1 else ""
    return runs[0].folder.name + others


def _series(runs: Sequence[Run], name: str) -> list[Series]:
    found = []
    for label, group in recipes(runs):
        lines = [_thinned(_line(run, name)) for run in group]
        points = [point for run in group for point in _evaluated(run, name)]
        found.append(Series(label, lines, _mean(lines), points))
    return found


def _line(run: Run, name: str) -> list[tuple[float, float]]:
    return [(one["steps"], one[name]) for one in run.metrics if "steps" in one and name in one]


def _evaluated(run: Run, name: str) -> list[tuple[float, float, float, float]]:
    """The evaluations before and after a run, as points."""
    ends = {"before": 0.0, "after": run.metrics[-1].get("steps", 0.0) if run.metrics else 0.0}
    key = {"success": "success", "return": "mean_return"}.get(name, "")
    found = []
    for when, x in ends.items():
        row = run.evaluations.get(when, {})
        if key in row:
            low, high = ("success_low", "success_high") if name == "success" else (key, key)
            y = row[key]
            found.append((x, y, row.get(low, y), row.get(high, y)))
    return found


def _thinned(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`POINTS` points, the last among them."""
    every = -(-len(line) // POINTS) or 1
    return [*line[::every], *([line[-1]] if line and (len(line) - 1) % every else [])]


def _mean(lines: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean of several lines as far as all of them go, at the first one's points."""
    known = [np.array(line) for line in lines if line]
    if not known:
        return []
    far = min(line[-1, 0] for line in known)
    begin = max(line[0, 0] for line in known)
    xs = [x for x in known[0][:, 0] if begin <= x <= far]
    ys = np.mean([np.interp(xs, line[:, 0], line[:, 1]) for line in known], axis=0)
    return [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]


def _ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers from ``low`` to ``high``."""
    size = 10.0 ** np.floor(np.log10(high - low))
    step = next(part for part in (0.2, 0.5, 1, 2) if (high - low) / size / part <= 6) * size
    first, last = int(np.ceil(low / step)), int(np.floor(high / step))
    return [round(float(number * step), 10) for number in range(first, last + 1)]


def _count(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:.0f}"


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:8]}…{text[-11:]}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: float, parts: Sequence[str], label: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
