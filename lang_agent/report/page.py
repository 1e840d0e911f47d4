"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from lang_agent.files import write_whole
from lang_agent.report import charts
from lang_agent.report.episodes import as_data, packed
from lang_agent.report.explain import Explained
from lang_agent.report.sources import Agent, Run
from lang_agent.report.tables import confusion, panels

SCRIPTS = ("data.js", "grid.js", "pane.js", "filters.js", "viewer.js", "main.js")
CURVES = (("success", "success, last 200 episodes"), ("return", "return, last 200 episodes"))
OWN = "metric/"  # before the names of a person's own metrics, and of a world's
PARTS = (("success/", "success by part"), ("weight/", "weight by part"))


def write_report(
    file: Path,
    agents: Sequence[Agent],
    runs: Sequence[Run],
    *,
    most_episodes: int,
    explained: Mapping[tuple[str, str, int, int], Explained] | None = None,
    refresh: float | None = None,
) -> None:
    """Write the page of these agents and runs.

    Args:
        most_episodes: of each panel, how many tasks' seeds are shown step by step.
        explained: which parts of a prompt moved a choice, by (label, task, seed, step).
        refresh: seconds after which the page loads itself anew.
    """
    script = "\n".join(["'use strict';", "(() => {", *map(_read, SCRIPTS), "})();"])
    style = _read("page.css")
    data = as_data(agents, most_episodes, explained or {})
    judged = [agent for agent in agents if not agent.group]  # a run's own moments are only watched
    page = _template().render(
        title=_title(agents, runs),
        panels=panels(judged),
        bars=charts.bars,
        colours=charts.COLOURS,
        learning=_learning(runs),
        runs=runs,
        confusions=[found for agent in judged if (found := confusion(agent))],
        shown=len(data["episodes"]),
        known=sum(len(agent.results.records) for agent in agents),
        stepwise=any("trajectory" in episode for episode in data["episodes"]),
        explained=bool(explained),
        data=Markup(packed(data)),
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        refresh=refresh,
    )
    write_whole(file, page)


@dataclass(frozen=True)
class _Charts:
    """Charts of the same series."""

    legend: Sequence[str]
    """What the colours mean."""
    drawn: Sequence[tuple[str, Markup]]
    """(what is drawn, the chart)"""


def _learning(runs: Sequence[Run]) -> list[_Charts]:
    """The charts of all recipes together, and for each that is a mixture those of its parts."""
    recipes = charts.recipes(runs)
    legend = [f"{label}: {_length(group[0])}" for label, group in recipes]
    own = dict.fromkeys(name for run in runs for one in run.metrics[-1:] for name in one)
    named = [*CURVES, *((name, name.removeprefix(OWN)) for name in own if name.startswith(OWN))]
    drawn = [(said, charts.curves(charts.by_recipe(runs, name), said)) for name, said in named]
    found = [_Charts(legend, drawn)]
    for label, group in recipes:
        parts = {said: charts.by_part(group, prefix) for prefix, said in PARTS}
        legend = [one.label for series in parts.values() for one in series]
        if legend:
            drawn = [(f"{said}: {label}", charts.curves(parts[said], said)) for said in parts]
            found.append(_Charts(list(dict.fromkeys(legend)), drawn))
    return found


def _length(run: Run) -> str:
    if not run.metrics:
        return "no update yet"
    last = run.metrics[-1]
    return f"{last.get('updates', 0):.0f} updates, {last.get('steps', 0):.0f} steps"


def _title(agents: Sequence[Agent], runs: Sequence[Run]) -> str:
    names = [run.folder.name for run in runs]
    names += [agent.label for agent in agents if not agent.group]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _read(name: str) -> str:
    return (files("lang_agent.report") / "page" / name).read_text(encoding="utf-8")


def _template() -> Template:
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")


def _hash(text: str) -> str:
    """As a content security policy names what it lets run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
