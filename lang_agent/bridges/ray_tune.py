"""Ray Tune: one function with each of several values, as many at once as a cluster has room for.

Ray is imported here: ask :func:`lang_agent.ray_connection.connected` first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from lang_agent.bridges.ray_cluster import MOST_DEATHS

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # a run has its own records
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which prints whatever verbose says

from ray import tune


def call_each(
    work: Callable[[Any, dict[str, Any]], str],
    values: Sequence[str],
    about: dict[str, Any],
    *,
    cpus: int,
    gpus: int,
) -> dict[str, str]:
    """Call ``work(value, about)`` for every value, each with so many cores and GPUs, and again
    where its worker dies; what each returned, or why it did not return."""

    def trial(chosen: dict[str, Any], about: dict[str, Any]) -> dict[str, str]:
        return {"said": work(chosen["value"], about)}

    wanted: dict[str, float] = {"cpu": cpus, "gpu": gpus}
    with tempfile.TemporaryDirectory(prefix="lang-agent-ray-") as storage:
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, about=about), wanted),
            param_space={"value": tune.grid_search(list(values))},
            run_config=tune.RunConfig(
                name="grid",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=MOST_DEATHS),
                verbose=0,
            ),
        ).fit()
        return {
            str((one.config or {})["value"]): (
                f"its worker died again and again: {one.error}"
                if one.error
                else str((one.metrics or {})["said"])
            )
            for one in map(results.__getitem__, range(len(results)))
        }
