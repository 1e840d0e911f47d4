"""What a run records of itself: an update's metrics, as JSON lines and for its trackers."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError, shown
from lang_agent.evaluation.run_records import METRICS_FILE
from lang_agent.evaluation.summary import ALL, Evaluation
from lang_agent.files import writing
from lang_agent.train.tracking import Tracker, grouped


class RunLog:
    """Appends to the metrics of a run of which ``steps`` environment steps lie behind; a context.

    What trackers hold of later steps, from before a kill, is declared void.
    """

    def __init__(self, folder: Path, steps: int, trackers: Sequence[Tracker] = ()) -> None:
        self.folder, self.steps, self.trackers = folder, steps, trackers

    def __enter__(self) -> RunLog:
        with writing(self.folder):
            self._file: IO[str] = (self.folder / METRICS_FILE).open("a", encoding="utf-8")
            for tracker in self.trackers:
                tracker.start(self.steps)
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()
        for tracker in self.trackers:
            tracker.close()

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Add an update's metrics; what is not finite is null, for JSON has no NaN."""
        plain = {name: finite(value) for name, value in metrics.items()}
        with writing(self.folder / METRICS_FILE):
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()
            steps = plain["steps"]
            numbers = {k: v for k, v in plain.items() if isinstance(v, (int, float))}
            self._tell({grouped(k): v for k, v in numbers.items() if k != "steps"}, steps)

    def evaluation(self, rows: Sequence[Evaluation], steps: int) -> None:
        """Tell the trackers what an evaluation after ``steps`` came to, in all and by task."""
        values: dict[str, float] = {}
        for row in rows:
            part = "" if len(rows) == 1 or row.task == ALL else f"/{row.task}"
            values[f"evaluation/success{part}"] = row.success
            values[f"evaluation/return{part}"] = row.mean_return
            values[f"evaluation/episode_length{part}"] = row.mean_length
            values[f"evaluation/invalid_rate{part}"] = row.invalid_rate
        with writing(self.folder):
            self._tell(values, steps)

    def sample(self, episode: Episode, steps: int) -> None:
        """Show the trackers an episode's last decision: what was read and what was answered."""
        last = episode.steps[-1]
        text = (
            f"{last.observation.prompt}{last.decision.action}\n\n"
            f"return {episode.total_reward:.3f}, {len(episode.steps)} steps"
            f"{', a success' if episode.success else ''}"
        )
        with writing(self.folder):
            for tracker in self.trackers:
                tracker.text("sample/episode", text, steps)

    def _tell(self, values: Mapping[str, float], steps: int) -> None:
        for tracker in self.trackers:
            tracker.scalars(values, steps)

    def flush(self) -> None:
        """Put everything on the disk: a checkpoint is about to rely on it."""
        with writing(self.folder / METRICS_FILE):
            os.fsync(self._file.fileno())


def finite(value: Any) -> Any:
    """``value`` as JSON can hold it: of an array with one element that, and None for a number that
    is not finite."""
    if hasattr(value, "item"):  # NumPy's and torch's, from somebody's callback
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def reward_parts(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean, standard deviation and seconds of each reward that a rubric is made of, and the share
    of the episodes that it could not judge."""
    said: dict[str, list[float]] = {}
    metrics: dict[str, float] = {}
    for episode in episodes:
        for step in episode.steps:
            for name, value in step.info.get("rewards", {}).items():
                said.setdefault(name, []).append(value)
            for name, seconds in step.info.get("reward_seconds", {}).items():
                key = f"reward_seconds/{name}"
                metrics[key] = metrics.get(key, 0.0) + seconds
    for name, values in said.items():
        metrics[f"reward/{name}"] = statistics.mean(values)
        metrics[f"reward_std/{name}"] = statistics.pstdev(values)
    if said:
        metrics["unjudged"] = sum(not episode.judged for episode in episodes) / len(episodes)
    return metrics


def world_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean of each number that the world says in ``info["metrics"]``, over the steps that have
    it, as ``metric/<name>``."""
    said: dict[str, list[float]] = {}
    for episode in episodes:
        for step in episode.steps:
            given = step.info.get("metrics", {})
            try:
                for name, value in given.items():
                    said.setdefault(f"metric/{name}", []).append(float(value))
            except (AttributeError, TypeError, ValueError):
                raise LangAgentError(
                    f"The world's info['metrics'] is {shown(given)}, where a dictionary of numbers "
                    "is expected: put other things elsewhere in info."
                ) from None
    return {name: statistics.fmean(values) for name, values in said.items()}


def part_metrics(
    names: Sequence[str], weights: Sequence[float], recent: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Of each part of a mixture the share of the draws, and the success where it was played lately.

    Args:
        recent: late episodes, as :class:`lang_agent.train.run_folder.Progress` keeps them.
    """
    found = {}
    for at, name in enumerate(names):
        outcomes = [success for success, _, part, _ in recent if part == at]
        if outcomes:
            found[f"success/{name}"] = statistics.fmean(outcomes)
        found[f"weight/{name}"] = weights[at] / sum(weights)
    return found


def expert_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """By imitation: the share of the episodes that the expert played, and the policy's success in
    those that it played itself."""
    own = [e for e in episodes if not any(step.decision.by_expert for step in e.steps)]
    found = {"expert_share": 1 - len(own) / len(episodes)}
    return found | ({"policy_success": statistics.fmean(e.success for e in own)} if own else {})
