"""Evaluating with several processes: each plays a part of the seeds, and this one writes."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import IO, Any

from lang_agent.cli.options import Evaluate
from lang_agent.config import as_data
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.evaluation.records import as_record
from lang_agent.evaluation.run import PlayTask, Take, TaskPlayer
from lang_agent.evaluation.tasks import Task
from lang_agent.processes import start

ALONE = ("human", "chat:")
"""Agents of which there are not several here: a person, and a server that is asked by slots."""


@contextmanager
def playing(
    args: Evaluate, player: TaskPlayer, prepare: Callable[[Evaluate, int], Any]
) -> Iterator[PlayTask]:
    """Who plays an evaluation's tasks: this process, or workers, as a context; a cluster's
    ``prepare`` the options as this process did."""
    if args.workers == 1 and args.address is None:
        yield player
        return
    for name in ALONE:
        if args.agent.startswith(name):
            raise LangAgentError(
                f"workers={args.workers} has no use with {args.agent}, which plays in one process: "
                "leave it at 1, and set slots to the episodes that are to be played at once."
            )
    slots = math.ceil(player.slots / args.workers)
    if args.address is not None:
        from lang_agent.cli.ray_evaluation import playing_on_ray

        with playing_on_ray(args, args.address, slots, prepare) as play_task:
            yield play_task
        return
    crew = [_started(args, slots) for _ in range(args.workers)]
    try:
        yield _Crew(crew)
    finally:
        for worker in crew:
            worker.kill()
            worker.wait()


def _started(args: Evaluate, slots: int) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    worker = start("lang_agent.cli.evaluation_worker", stdin=pipe, stdout=pipe, encoding="utf-8")
    _say(worker, {"args": as_data(args), "slots": slots, "parent": os.getpid()})
    return worker


class _Crew:
    """Workers that play a task together: a :data:`lang_agent.evaluation.run.PlayTask`."""

    def __init__(self, workers: Sequence[subprocess.Popen[str]]) -> None:
        self.workers = workers

    def __call__(self, task: Task, seeds: Sequence[int], take: Take) -> str:
        said: Queue[tuple[int, dict[str, Any] | None]] = Queue()
        busy, reason, spent = 0, "", ""
        for number, worker in enumerate(self.workers):
            if mine := list(seeds[number :: len(self.workers)]):
                _say(worker, {"task": task.name, "seeds": mine})
                busy += 1
                Thread(target=_listen, args=(number, worker.stdout, said), daemon=True).start()
        while busy:
            number, message = said.get()
            if message is None:
                status = self.workers[number].wait()
                raise LangAgentError(
                    f"A worker of the evaluation ended with status {status}: what was played is "
                    "kept, and the same command with --out goes on."
                )
            if "record" in message:
                take(as_record(message["record"]), message["trajectory"])
            else:
                busy -= 1
                reason, spent = reason or message["reason"], spent or message["spent"]
        if spent:
            raise SpentError(spent)
        return reason


def _say(worker: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass  # it has ended, which whoever listens to it finds out


def _listen(number: int, stream: IO[str], said: Queue[tuple[int, dict[str, Any] | None]]) -> None:
    """Hand on what a worker says of a task, to its end; None where the worker ends before."""
    for line in stream:
        message = json.loads(line)
        said.put((number, message))
        if "reason" in message:
            return
    said.put((number, None))
