"""Ray Train: a function that every worker of a run calls, and that is called again where one dies.

Ray is imported here: ask :func:`lang_agent.ray_connection.connected` first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError
from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from lang_agent.bridges.ray_cluster import ask


class _Deaths(UserCallback):
    """Tells the channel of workers that died, and ends what fails in another way."""

    def __init__(self, channel: Any, workers: int) -> None:
        self.channel, self.workers = channel, workers

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        # Of a death Ray learns now from itself, and now from the other workers, whose sums fail.
        dead = sorted(rank for rank, error in worker_exceptions.items() if _is_death(error))
        names = " and ".join(f"Worker {rank + 1} of {self.workers}" for rank in dead)
        why = str([*worker_exceptions.values()][-1]).strip().splitlines()
        ask(self.channel.died.remote(names or "A worker", why[-1] if why else ""))


def _is_death(error: Exception) -> bool:
    """Whether an error of Ray Train's says that a worker's process is gone."""
    return isinstance(getattr(error, "health_check_failure", error), RayError)


def fit(
    work: Callable[[dict[str, Any]], None],
    about: dict[str, Any],
    *,
    workers: int,
    cpus: int,
    gpu: bool,
    seconds: float,
    channel: Any,
) -> None:
    """Have so many workers call ``work(about)``, joined in torch's default process group (gloo for
    what lies in main memory, nccl for what lies on GPUs), until all of them have returned.

    Where a worker dies, or its node does, all are ended and ``work`` is called again by new ones:
    it goes on from what it has saved by itself.

    Args:
        cpus: cores of each worker.
        gpu: whether each has a GPU.
        seconds: for which one may wait for the others.
        channel: is told of deaths.
    """
    deaths: list[Any] = [_Deaths(channel, workers)]
    with tempfile.TemporaryDirectory(prefix="lang-agent-ray-") as storage:
        trainer = TorchTrainer(
            work,
            train_loop_config=about,
            torch_config=TorchConfig(
                backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout_s=int(seconds)
            ),
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=gpu,
                resources_per_worker={"CPU": cpus, **({"GPU": 1} if gpu else {})},
            ),
            run_config=RunConfig(
                name="run",
                storage_path=storage,
                failure_config=FailureConfig(max_failures=-1),
                callbacks=deaths,
            ),
        )
        while True:
            try:
                trainer.fit()
                return
            except ControllerError as error:  # of one that dies as it starts, Ray gives up
                if not isinstance(error.controller_failure, RayError):
                    raise
                ask(channel.died.remote("A worker", "it died as it started"))
                if ask(channel.ending.remote()):
                    return
                _release_left()


def _release_left() -> None:
    """Give back the cores that a controller which has ended still holds: Ray sometimes does not,
    and then the next workers would wait for them without end."""
    import ray
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import (
        PlacementGroup,
        placement_group_table,
        remove_placement_group,
    )

    ours = ray.get_runtime_context().get_job_id()  # with which the names of its groups end
    for name, group in placement_group_table().items():
        if name.endswith(ours) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(name)))
