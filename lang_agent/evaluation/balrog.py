"""BALROG's folders of results, written and read, so that its submissions stand beside ours.

``DIR/FAMILY/TASK/TASK_run_NN.json`` and ``.csv`` hold an episode (the names of BabyAI's tasks have
a slash, and so two folders more), ``DIR/FAMILY/FAMILY_summary.json`` and ``DIR/summary.json`` what
they come to (Paglieri et al. 2024, arXiv 2411.13543; its repository at af7d1f1). A family's error
is the population's deviation of all its episodes over the root of their number.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lang_agent.errors import LangAgentError, shown
from lang_agent.evaluation import summary
from lang_agent.evaluation.compare import Standing
from lang_agent.evaluation.records import (
    TRAJECTORIES_FILE,
    Record,
    Results,
    place_of,
    read_lines,
)
from lang_agent.evaluation.statistics import mean_interval
from lang_agent.evaluation.summary import wilson
from lang_agent.evaluation.trajectories import prompts
from lang_agent.files import read_text, write_whole

FAMILY = "babyai"
LEVEL = "BabyAI-MixedTrainLocal-v0"


@dataclass(frozen=True)
class Submission:
    """What BALROG's files say of one agent in one family."""

    agent: str
    progressions: Mapping[str, Sequence[float]]
    """Task -> of each episode, 0 to 1."""
    input_tokens: int = 0
    output_tokens: int = 0
    mean_return: float = 0.0
    invalid_rate: float = 0.0
    """Answers that were no action, a step."""

    @property
    def all(self) -> list[float]:
        return [value for values in self.progressions.values() for value in values]


def mean_and_error(progressions: Sequence[float]) -> tuple[float, float]:
    """In percent: the mean, and the population's deviation over the root of the number."""
    mean, error = summary.mean_and_error(progressions)
    return 100 * mean, 100 * error


def write_balrog(results: Results, folder: Path) -> None:
    """Write results as BALROG does; with trajectories, each episode's steps too.

    Raises :class:`LangAgentError` for results without an episode.
    """
    if not results.records:
        raise LangAgentError(f"'{results.folder}' has no episodes yet.")
    stored = {place_of(data): data for _, data in read_lines(results.folder / TRAJECTORIES_FILE)}
    for task in results.spec.tasks:
        name = f"{LEVEL}/{task.name}"
        for number, record in enumerate(results.of_task(task.name)):
            place = str(folder / FAMILY / name / f"{name}_run_{number:02}")
            trajectory = stored.get(record.place)
            try:
                data = _episode(results, name, number, record, trajectory)
                steps = None if trajectory is None else _steps(trajectory)
            except (KeyError, TypeError, ValueError) as error:
                raise LangAgentError(
                    f"'{results.folder / TRAJECTORIES_FILE}' is damaged, at seed {record.seed}: "
                    f"{shown(error)}."
                ) from None
            write_whole(Path(f"{place}.json"), json.dumps(data, indent=4))
            if steps is not None:
                write_whole(Path(f"{place}.csv"), steps)
    family = _family(results)
    write_whole(folder / FAMILY / f"{FAMILY}_summary.json", json.dumps(family, indent=4))
    average, deviation = family["progression_percentage"], family["standard_error"]
    whole = {
        "average_progress": average,
        "standard_error": deviation,
        "environments": {
            FAMILY: {
                "progression_percentage": average,
                "standard_error": deviation,
                "episodes_played": family["episodes_played"],
            }
        },
        "total_input_tokens": family["input_tokens"],
        "total_output_tokens": family["output_tokens"],
        "client": {"client_name": "lang_agent", "model_id": results.name},
        "agent": {"type": results.name},
    }
    write_whole(folder / "summary.json", json.dumps(whole, indent=4))


def _episode(
    results: Results,
    name: str,
    number: int,
    record: Record,
    trajectory: Mapping[str, Any] | None,
) -> dict[str, Any]:
    steps = [] if trajectory is None else trajectory["steps"]
    return {
        "task": name,
        "action_frequency": dict(Counter(str(step["action"]) for step in steps)),
        "input_tokens": record.tokens_read,
        "output_tokens": record.tokens_written,
        "episode_return": record.total_reward,
        "num_steps": record.steps,
        "failed_candidates": [s["action"] for s in steps if s["verdict"] == "invalid"],
        "progression": record.progression,
        "done": record.terminated,
        "process_num": str(number),
        "seed": record.seed,
        "agent": {"type": results.name},
        "client": {"client_name": "lang_agent", "model_id": results.name},
    }


def _steps(trajectory: Mapping[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["Step", "Action", "Reasoning", "Observation", "Reward", "Done"])
    last = len(trajectory["steps"]) - 1
    for at, (step, prompt) in enumerate(zip(trajectory["steps"], prompts(trajectory), strict=True)):
        thought = "".join(token["text"] for token in step["written"])
        row = [at, step["action"], thought, prompt, step["reward"], at == last]
        writer.writerow(row)
    return out.getvalue()


def _family(results: Results) -> dict[str, Any]:
    tasks = {}
    for task in results.spec.tasks:
        found = [record.progression for record in results.of_task(task.name)]
        if found:
            mean, error = mean_and_error(found)
            tasks[f"{LEVEL}/{task.name}"] = {
                "progression_percentage": mean,
                "standard_error": error,
                "episodes_played": len(found),
            }
    mean, error = mean_and_error([record.progression for record in results.records])
    return {
        "progression_percentage": mean,
        "standard_error": error,
        "average_steps": float(np.mean([record.steps for record in results.records])),
        "episodes_played": len(results.records),
        "tasks": tasks,
        "input_tokens": sum(record.tokens_read for record in results.records),
        "output_tokens": sum(record.tokens_written for record in results.records),
    }


def of_submission(submission: Submission) -> Standing:
    """A submission's row in a leaderboard. Its seeds are not ours, so that nothing is paired."""
    values = submission.all
    if {*values} <= {0.0, 1.0}:
        low, high = wilson(int(sum(values)), len(values))
    else:
        low, high = mean_interval(values)
    return Standing(
        name=f"{submission.agent} (BALROG)",
        runs=1,
        episodes=len(values),
        progression=float(np.mean(values)),
        low=max(low, 0.0),
        high=min(high, 1.0),
        success=sum(value == 1 for value in values) / len(values),
        mean_return=submission.mean_return,
        invalid_rate=submission.invalid_rate,
        tokens_read=submission.input_tokens,
        tokens_written=submission.output_tokens,
    )


def is_balrog(folder: Path) -> bool:
    """Whether a folder is one of BALROG's."""
    return (folder / FAMILY).is_dir() and not (folder / "spec.json").exists()


def read_balrog(folder: Path) -> Submission:
    """The BabyAI episodes of one of BALROG's folders.

    Raises :class:`LangAgentError` for a folder without any, and for a damaged file.
    """
    progressions: dict[str, list[float]] = {}
    read = written = steps = invalid = 0
    returns = []
    agent = folder.name
    for file in sorted((folder / FAMILY).rglob("*_run_*.json")):
        try:
            data = json.loads(read_text(file, "BALROG's episode"))
            task = str(data["task"]).rpartition("/")[2]
            progressions.setdefault(task, []).append(float(data["progression"]))
            read += int(data.get("input_tokens", 0))
            written += int(data.get("output_tokens", 0))
            steps += int(data.get("num_steps", 0))
            invalid += len(data.get("failed_candidates", ()))
            returns.append(float(data.get("episode_return", 0.0)))
            client = data.get("client") or {}
            agent = str(client.get("model_id") or agent) if isinstance(client, Mapping) else agent
        except (ValueError, KeyError, TypeError) as error:
            raise LangAgentError(f"BALROG's episode '{file}' is damaged: {shown(error)}.") from None
    if not progressions:
        raise LangAgentError(
            f"'{folder}' has no episodes of BALROG's: {FAMILY}/TASK/TASK_run_NN.json is looked for."
        )
    mean, rate = float(np.mean(returns)), invalid / max(steps, 1)
    return Submission(agent, progressions, read, written, mean, rate)
