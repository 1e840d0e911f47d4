"""A run's workers on one machine: processes beside this one that play and learn their share.

The first worker is the process that the run was begun in. It alone writes, prints and is stopped;
the others are started by it from its newest checkpoint, do what it does
(:meth:`lang_agent.train.trainer.Trainer.follow`) and end with it, however it ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from lang_agent.config import as_data
from lang_agent.errors import LangAgentError
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.device import find_device
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.threads import is_small
from lang_agent.processes import cores, start
from lang_agent.train.config import TrainConfig

if TYPE_CHECKING:
    from lang_agent.train.trainer import Trainer

HOST = "127.0.0.1"
PATIENCE = timedelta(days=30)
"""Others wait so long while one evaluates or saves; of one that ended they hear at once."""
SECONDS_TO_END = 20.0


def worker_count(config: TrainConfig, policy: LanguagePolicy) -> int:
    """How many workers a run has: on a processor, auto takes one for every core where a second
    thread would gain little (:mod:`lang_agent.models.threads`), but no more than there are
    environments.

    Raises:
        LangAgentError: several workers on fewer GPUs, or on one that was chosen.
    """
    device = find_device(config.device) if config.shard else policy.device
    on_gpu = device.type != "cpu"
    if config.async_envs:
        return 1
    if isinstance(config.workers, int):
        if on_gpu and config.workers > 1:
            _refuse_too_few(config.workers, device)
        return config.workers
    return 1 if on_gpu or not is_small(policy) else max(min(cores(), config.envs), 1)


def _refuse_too_few(workers: int, device: torch.device) -> None:
    """Raise :class:`LangAgentError` unless each of the workers has a GPU of its own."""
    here = torch.cuda.device_count()
    if device.type != "cuda" or device.index or here < workers:
        raise LangAgentError(
            f"workers={workers} take a GPU each, from the first one on, and the model is on "
            f"{device} with {here} of CUDA here: set workers to {max(here, 1)} or fewer, or device "
            f"to {'cuda' if device.index else 'cpu'}."
        )


@contextmanager
def working(run: Trainer) -> Iterator[None]:
    """Have the run's other workers play and learn with this process, as a context.

    Raises:
        LangAgentError: one of them ended before the run did.
    """
    if dist.is_initialized():  # whoever began this process has gathered them already
        yield
        return
    size = worker_count(run.config, run.policy)
    if size == 1:
        yield
        return
    store = dist.TCPStore(HOST, 0, size, is_master=True, wait_for_workers=False)
    others: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, size):
            others.append(_started(run, rank, size, store.port))
        _wait_for(others, store)
        meet(store, 0, size, run.device)
        run.join(Workers(0, size, run.config.shard))
        yield
        run.workers.say(None)
        for other in others:
            other.wait(SECONDS_TO_END)
    except RuntimeError as error:  # torch's, of a connection that is closed; or of _wait_for
        if isinstance(error, LangAgentError) or not (lost := _ended(others, 1.0)):
            raise
        rank, status = lost
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise LangAgentError(
            f"Worker {rank + 1} of {size} {how}: `lang-agent train --resume {run.folder}` goes on "
            "from the last checkpoint."
        ) from None
    finally:
        for other in others:
            other.kill()
            other.wait()
        run.join(ALONE)
        with suppress(RuntimeError, AssertionError, ValueError):
            dist.destroy_process_group()


def _wait_for(others: Sequence[subprocess.Popen[bytes]], store: dist.TCPStore) -> None:
    """Wait until the others are about to join: one that ends before would be waited for in vain.

    Raises:
        RuntimeError: one has ended.
    """
    while not store.check([_here(rank) for rank in range(1, len(others) + 1)]):
        if _ended(others, 0.05):
            raise RuntimeError("a worker has ended")


def _here(rank: int) -> str:
    return f"worker {rank} is here"


def meet(store: dist.TCPStore, rank: int, size: int, device: torch.device | None = None) -> None:
    """Join the process group, once all others have. ``device``: what this one computes on; what
    GPUs hold is exchanged by NCCL, all else by gloo."""
    store.set(_here(rank), "")
    if sys.platform == "linux":  # or a machine whose name nobody resolves is not found
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backend = "gloo"
    if device is not None and device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def as_it_stands(run: Trainer) -> dict[str, Any]:
    """What another process needs to stand where the run does (:func:`follower.standing_at`),
    as JSON has it."""
    # What watches a run watches it in one place.
    config = replace(run.config, track=("none",), metrics=(), callback=())
    return {
        "config": as_data(config),
        "folder": str(run.folder),
        "checkpoint": str(run.saved),
        "trust": run.trust,
    }


def _started(run: Trainer, rank: int, size: int, port: int) -> subprocess.Popen[bytes]:
    """The process of a worker, which stands where the run does."""
    about = {**as_it_stands(run), "rank": rank, "size": size, "port": port, "parent": os.getpid()}
    if run.device.type == "cuda":
        about["config"]["device"] = f"cuda:{rank}"
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    other = start("lang_agent.train.follower", stdin=pipe, stdout=nowhere)
    assert other.stdin is not None
    with suppress(BrokenPipeError):  # it has ended, which is found out
        other.stdin.write(json.dumps(about).encode())
        other.stdin.close()
    return other


def _ended(others: Sequence[subprocess.Popen[bytes]], seconds: float) -> tuple[int, int] | None:
    """The rank and the exit status of a worker that ended, or does within ``seconds`` of being
    looked at; None where all go on."""
    for rank, other in enumerate(others, 1):
        with suppress(subprocess.TimeoutExpired):
            return rank, other.wait(seconds)
    return None
