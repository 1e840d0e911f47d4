"""``lang-agent train --address``: a run whose workers are a Ray cluster's.

The command starts the workers and prints what the first one says; the run is written by that
worker, wherever it is, so that all nodes must share the run's folder. When a worker dies, Ray
starts all anew, and they go on from the run's last checkpoint as ``--resume`` does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lang_agent.bridges.ray_cluster import (
    Lines,
    ask,
    at_home,
    open_channel,
    refuse_too_many,
    room_for,
)
from lang_agent.cli.console import say, set_up_streams
from lang_agent.cli.guard import guarded, show_bug
from lang_agent.cli.parse import run_folder
from lang_agent.cli.training import begin, carry_out
from lang_agent.config import as_data, from_dict, load_config
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.records import versions
from lang_agent.learn.workers import Workers
from lang_agent.lock import LockedError
from lang_agent.models.store import CONFIG_FILE, list_checkpoints
from lang_agent.ray_connection import connected
from lang_agent.train.config import TrainConfig
from lang_agent.train.follower import standing_at
from lang_agent.train.trainer import Trainer
from lang_agent.train.workers import PATIENCE, as_it_stands

LOOKS_EVERY = 0.2  # seconds
LOCKED_SECONDS = 30.0
"""For so long the worker of before, whose process is being ended, may still hold the folder."""
END_SECONDS = 20.0
"""So long the workers may take to end when the run has."""
WAITS_SECONDS = 30.0
"""After so long a person is told what is waited for."""


def train(
    config: TrainConfig,
    address: str,
    resume: Path | None = None,
    *,
    trust: bool = False,
    **going_on: Any,
) -> None:
    """Train a run, or go on with one, on the Ray cluster at ``address``.

    Raises:
        LangAgentError: whatever the run cannot do, what the cluster has no room for, or workers
            that die again and again.
        KeyboardInterrupt: the run was stopped, after it was saved.
    """
    if resume is not None:
        if not (resume / CONFIG_FILE).is_file():
            raise LangAgentError(f"'{resume}' is no run folder: it has no {CONFIG_FILE}.")
        config = load_config(resume / CONFIG_FILE, TrainConfig, trust=trust)
    else:
        config = replace(config, out=config.out or run_folder(config, f"-{config.seed}"))
    with connected(address):
        from lang_agent.bridges.ray_train import fit

        size, cpus, gpu = _workers(config, address)
        channel = open_channel()
        about = {
            "config": as_data(config),
            "resume": None if resume is None else str(resume),
            "going_on": going_on,
            "trust": trust,
            "address": address,
            "folder": os.getcwd(),
            "path": list(sys.path),
            "channel": channel,
        }
        options: dict[str, Any] = {"workers": size, "cpus": cpus, "gpu": gpu}
        say(f"{size} workers on the Ray cluster at {address}")
        follow(
            lambda: fit(work, about, seconds=PATIENCE.total_seconds(), channel=channel, **options),
            channel,
            lambda: f"{size} workers" if room_for(cpus, int(gpu)) < size else "",
        )


def _workers(config: TrainConfig, address: str) -> tuple[int, int, bool]:
    """How many workers a run has on the cluster, the cores of each, and whether each has a GPU."""
    cpus = config.threads or 1
    gpu = config.device != "cpu" and bool(room_for(cpus, 1))
    if config.device == "cuda" and not gpu:
        raise LangAgentError(
            f"device=cuda, and the Ray cluster at {address!r} has no GPU: set device to cpu."
        )
    size = config.workers
    if not isinstance(size, int):
        size = max(min(room_for(cpus, int(gpu)), config.envs), 1)
    refuse_too_many(size, address, cpus, int(gpu))
    return size, cpus, gpu


def follow(run: Callable[[], None], channel: Any, lacking: Callable[[], str]) -> None:
    """Call ``run`` and print what its workers say, until it returns; hand on signals to stop.

    Args:
        lacking: says what there is no room for on the cluster just now, if anything.

    Raises:
        LangAgentError: it failed.
        KeyboardInterrupt: it was stopped.
    """
    failure: list[BaseException] = []

    def call() -> None:
        try:
            run()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=call, daemon=True)
    ended: tuple[str, str] | None = None
    with _signals() as signals:
        thread.start()
        heard, told, over = time.monotonic(), False, float("inf")
        while thread.is_alive() and time.monotonic() < over:
            thread.join(LOOKS_EVERY)
            if _print(channel):
                heard, told = time.monotonic(), False
            if signals and not told:
                ask(channel.stop.remote())
            if len(signals) > (0 if told else 1):
                raise KeyboardInterrupt
            if ended is None and (ended := ask(channel.ending.remote())):
                over = time.monotonic() + END_SECONDS
            if not told and time.monotonic() - heard > WAITS_SECONDS and (what := lacking()):
                told = True
                say(f"Waiting for nodes with room for {what}; Ctrl-C stops.")
        ended = ended or ask(channel.ending.remote())
        _print(channel)
    if ended is None:
        what = str(failure[0]) if failure else "its workers ended without a word"
        raise LangAgentError(f"Ray gave up: {' '.join(what.split())}")
    how, sentence = ended
    if how == "stopped":
        raise KeyboardInterrupt
    if how == "failed":
        raise LangAgentError(sentence)


def _print(channel: Any) -> bool:
    """Print what the workers have said since the last time; whether there was any."""
    lines = ask(channel.read.remote())
    for line, error in lines:
        if error:
            print(line, file=sys.stderr)
        else:
            say(line)
    sys.stdout.flush()
    return bool(lines)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Within, Ctrl-C and SIGTERM end nothing by themselves; the list will have those that came."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- what every worker does ------------------------------------------------------------------------


def work(about: dict[str, Any]) -> None:
    """Play and learn as one of the workers, who are joined in torch's default process group; the
    first one also writes, evaluates and speaks."""
    workers = Workers(dist.get_rank(), dist.get_world_size(), about["config"]["shard"])
    channel = about["channel"]
    if ask(channel.ending.remote()):
        return
    try:
        with at_home(about["folder"], about["path"]):
            if workers.leads:
                with speaking(channel):
                    guarded(lambda: _lead(workers, about))
            else:
                _follow(workers)
    except KeyboardInterrupt:
        ask(channel.finish.remote("stopped"))
    except LangAgentError as error:
        ask(channel.finish.remote("failed", str(error)))
    except Exception as error:
        if not _of_the_group(error):
            what = "".join(traceback.format_exception_only(error)).strip()
            name = f"Worker {workers.rank + 1} of {workers.size}"
            ask(channel.finish.remote("failed", f"{name} failed: {what}"))
        elif ask(channel.ending.remote()) is None:
            raise  # another worker has died: Ray begins again
    finally:
        dist.destroy_process_group()


def _of_the_group(error: BaseException) -> bool:
    """Whether an error comes of the other workers: one of them is gone."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, RuntimeError) and "distributed" in Path(last.filename).parts


def _lead(workers: Workers, about: dict[str, Any]) -> None:
    channel = about["channel"]
    run = _begun(about)
    _refuse_other_versions(workers)
    workers.say(as_it_stands(run))
    run.join(workers)
    workers.gather(None)  # all are there

    try:
        carry_out(run, lambda run: stopped_by(channel, run), f" --address {about['address']}")
    except KeyboardInterrupt:  # after an update, when the others wait to be told what is next
        workers.say(None)
        raise
    workers.say(None)
    ask(channel.finish.remote("done"))


def _begun(about: dict[str, Any]) -> Trainer:
    """The run as it is to go on: new the first time, from its last checkpoint each further one."""
    config = from_dict(TrainConfig, about["config"], "the run")
    resume = None if about["resume"] is None else Path(about["resume"])
    folder = resume or Path(str(config.out))
    known = (folder / CONFIG_FILE).is_file()
    newest = [checkpoint.name for checkpoint in list_checkpoints(folder)[-1:]]
    again = ask(about["channel"].begin.remote((known, newest)))
    if again and known:
        resume = folder
    end = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return begin(config, resume, trust=about["trust"], **about["going_on"])
        except LockedError:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def _follow(workers: Workers) -> None:
    _refuse_other_versions(workers)
    stand = workers.say()
    if not Path(stand["checkpoint"]).is_dir():
        raise LangAgentError(
            f"The node {socket.gethostname()} cannot see '{stand['folder']}': all nodes must share "
            "the run's folder."
        )
    run = standing_at(stand)
    run.join(workers)
    workers.gather(None)
    run.follow()


def _refuse_other_versions(workers: Workers) -> None:
    """Raise :class:`LangAgentError` where not all workers run the same."""
    told = workers.gather((socket.gethostname(), versions()))
    (first, wanted), *others = told
    for node, found in others:
        for name in wanted | found:
            if found.get(name) != wanted.get(name):
                raise LangAgentError(
                    f"The node {node} has {name} {found.get(name, 'not at all')} and {first} has "
                    f"{wanted.get(name, 'none')}: all nodes of a run need the same versions."
                )


@contextmanager
def speaking(channel: Any, before: str = "") -> Iterator[None]:
    """Within, what is printed goes to the command that watches, each line behind ``before``."""
    out, error = Lines(channel, before=before), Lines(channel, error=True, before=before)
    with redirect_stdout(out), redirect_stderr(error):
        set_up_streams()
        try:
            yield
        except LangAgentError as error_of_ours:
            show_bug(error_of_ours)
            raise


@contextmanager
def stopped_by(channel: Any, run: Trainer) -> Iterator[list[int]]:
    """Within, the run ends after its update when the command is told to stop; the list will say
    so."""
    came: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            if ask(channel.is_to_stop.remote()):
                came.append(signal.SIGINT)
                run.stop = True
                say("Stopping after this update; once more to stop at once.")
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield came
    finally:
        over.set()
        thread.join()
