"""The report: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
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
        curves=[(label, charts.curves(runs, name, label)) for name, label in CURVES],
        recipes=charts.recipes(runs),
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
