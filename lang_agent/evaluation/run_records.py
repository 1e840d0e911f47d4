"""What a training run records of itself, read back: its metrics and its evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.files import json_lines, set_aside, tell

METRICS_FILE = "metrics.jsonl"
EVALUATION_FILE = "evaluation.json"
SNAPSHOTS = "snapshots"
"""The folder in which a run keeps episodes of itself as it learns: a folder of results each, called
by the number of updates."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one record an update; damaged lines are left out with a warning."""
    file = run / METRICS_FILE
    if not file.is_file():
        raise LangAgentError(f"'{run}' has no {METRICS_FILE}: is it a run folder?")
    lines = file.read_bytes().decode("utf-8", errors="replace").split("\n")
    records = []
    for number, record, reason in json_lines(lines):
        if isinstance(record, dict) and "updates" in record:
            records.append(record)
        elif number < len(lines):  # the last line is one that is being written
            tell(f"'{file}', line {number}, is left out: {reason or 'no record of an update'}.")
    return records


def read_evaluations(folder: Path) -> dict[str, Any]:
    """The evaluations recorded so far, by name; a damaged file is set aside with a warning."""
    file = folder / EVALUATION_FILE
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_bytes())
        if isinstance(known, dict):
            return known
    except (ValueError, RecursionError):
        pass
    aside = set_aside(file)
    tell(f"'{file}' is damaged and begun anew; '{aside.name}' keeps it as it was.")
    return {}
