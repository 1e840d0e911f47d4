"""What a run records of itself: an update's metrics, as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from torch.utils.tensorboard import SummaryWriter

from lang_agent.episode import Episode
from lang_agent.evaluation.run_records import METRICS_FILE
from lang_agent.files import writing


class RunLog:
    """Appends to the metrics of a run of which ``steps`` environment steps lie behind; a context.

    What TensorBoard's files hold of later steps, from before a kill, is declared void.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps

    def __enter__(self) -> RunLog:
        with writing(self.folder):
            self._file: IO[str] = (self.folder / METRICS_FILE).open("a", encoding="utf-8")
            # Readers take these files in the order of their names, which tell the second.
            while list(self.folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
                time.sleep(0.05)
            # The step given and all above it are void.
            self._board = SummaryWriter(str(self.folder), purge_step=self.steps + 1)
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Add an update's metrics; what is not finite is null, for JSON has no NaN."""
        with writing(self.folder / METRICS_FILE):
            self._file.write(json.dumps({k: finite(v) for k, v in metrics.items()}) + "\n")
            self._file.flush()
            for name, value in metrics.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, metrics["steps"])

    def flush(self) -> None:
        """Put everything on the disk: a checkpoint is about to rely on it."""
        with writing(self.folder / METRICS_FILE):
            os.fsync(self._file.fileno())
            self._board.flush()


def finite(value: Any) -> Any:
    """``value``, or None for a number that JSON cannot hold."""
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
