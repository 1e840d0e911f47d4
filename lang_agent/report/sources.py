"""What a report is made from: folders of results and of runs, as they lie on the disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.evaluation.records import SPEC_FILE, Results, read_results
from lang_agent.evaluation.run_records import (
    EVALUATION_FILE,
    METRICS_FILE,
    SNAPSHOTS,
    read_metrics,
)
from lang_agent.evaluation.trajectories import read_trajectories
from lang_agent.files import tell
from lang_agent.yaml_data import read_yaml

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Agent:
    """One agent's results on a panel, with its episodes step by step where they were kept."""

    label: str
    results: Results
    trajectories: Mapping[tuple[str, int], Mapping[str, Any]]
    """(task, seed) -> the episode (:mod:`lang_agent.evaluation.trajectories`)."""
    group: str = ""
    """The run that it is a moment of."""


@dataclass(frozen=True)
class Run:
    """A training run."""

    folder: Path
    metrics: Sequence[Mapping[str, float]]
    """Of each update, those that are finite numbers."""
    evaluations: Mapping[str, Mapping[str, float]]
    """Name (before, after) -> the figures over all tasks."""
    config: Mapping[str, Any]

    @property
    def recipe(self) -> str:
        """What runs have in common that differ in their seeds alone."""
        own = ("seed", "out", "threads", "device")
        same = {name: value for name, value in self.config.items() if name not in own}
        return json.dumps(same, sort_keys=True, default=str)


def read_sources(folders: Sequence[Path]) -> tuple[list[Agent], list[Run]]:
    """The results and runs in folders.

    Raises :class:`LangAgentError` for a folder that is neither.
    """
    agents: list[Agent] = []
    runs: list[Run] = []
    for folder in folders:
        if (folder / SPEC_FILE).is_file():
            agents.append(_agent(folder))
        elif (folder / METRICS_FILE).is_file() or (folder / CONFIG_FILE).is_file():
            runs.append(_run(folder))
            agents += _snapshots(folder)
        else:
            raise LangAgentError(
                f"'{folder}' holds neither results ({SPEC_FILE}, of lang-agent evaluate) nor a run "
                f"({METRICS_FILE}, of lang-agent train)."
            )
    return _named_apart(agents), runs


def _agent(folder: Path, label: str = "", group: str = "") -> Agent:
    results = read_results(folder)
    found = {(data["task"], data["seed"]): data for data in read_trajectories(folder)}
    return Agent(label or results.name, results, found, group)


def _snapshots(run: Path) -> Iterator[Agent]:
    """The run as it learned, by the number of updates."""
    folders = [path for path in (run / SNAPSHOTS).glob("*") if path.name.isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name)):
        if (folder / SPEC_FILE).is_file():
            yield _agent(folder, f"{run.name}, update {int(folder.name)}", run.name)


def _run(folder: Path) -> Run:
    metrics = read_metrics(folder) if (folder / METRICS_FILE).is_file() else []
    return Run(folder, list(map(_numbers, metrics)), _evaluations(folder), _config(folder))


def _numbers(data: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are finite numbers."""
    return {
        name: value
        for name, value in data.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def _evaluations(folder: Path) -> dict[str, dict[str, float]]:
    """As :func:`read_evaluations`, of a folder that is not ours to mend."""
    try:
        data = json.loads((folder / EVALUATION_FILE).read_bytes())
        return {str(name): _numbers(rows[-1]) for name, rows in data.items() if rows}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        tell(f"'{folder / EVALUATION_FILE}' is left out: {error}.")
        return {}


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    try:
        data = read_yaml(file.read_text(encoding="utf-8", errors="replace"), f"'{file}'")
    except (OSError, LangAgentError) as error:
        tell(f"'{file}' is left out: {error}")
        data = {}
    return dict(data) if isinstance(data, Mapping) else {}


def _named_apart(agents: Sequence[Agent]) -> list[Agent]:
    """Agents of one name are told apart by their folders."""
    labels = [agent.label for agent in agents]
    return [
        replace(agent, label=f"{agent.label} ({agent.results.folder.name})")
        if labels.count(agent.label) > 1
        else agent
        for agent in agents
    ]
