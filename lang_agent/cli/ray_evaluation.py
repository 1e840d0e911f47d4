"""``lang-agent evaluate --address``: an evaluation whose episodes are played on a Ray cluster.

Its workers are actors that play a part of a task's seeds each; this process writes what they
say as it comes (:mod:`lang_agent.evaluation.run`). Of one that dies another plays what is left.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any

from lang_agent.bridges.ray_cluster import at_home, refuse_too_many, room_for
from lang_agent.cli.options import Evaluate
from lang_agent.config import as_data, from_dict
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.evaluation.records import Record, as_line, as_record, versions
from lang_agent.evaluation.run import PlayTask, Take
from lang_agent.evaluation.tasks import Task
from lang_agent.ray_connection import connected


@contextmanager
def playing_on_ray(
    args: Evaluate, address: str, slots: int, prepare: Callable[[Evaluate, int], Any]
) -> Iterator[PlayTask]:
    """The workers of an evaluation on the Ray cluster at ``address``, each with so many slots, as a
    context; ``prepare`` makes out of the options what plays."""
    with connected(address):
        from lang_agent.bridges.ray_actors import Worker

        cpus = args.threads or 1
        gpu = int(args.device != "cpu" and bool(room_for(cpus, 1)))
        refuse_too_many(args.workers, address, cpus, gpu)
        about = {
            "args": as_data(args),
            "slots": slots,
            "prepare": prepare,
            "folder": os.getcwd(),
            "path": list(sys.path),
            "versions": versions(),
        }
        crew = [Worker(Player, about, cpus=cpus, gpus=gpu) for _ in range(args.workers)]

        def play_task(task: Task, seeds: Sequence[int], take: Take) -> str:
            return _play(crew, task, seeds, take)

        yield play_task


def _play(crew: Sequence[Any], task: Task, seeds: Sequence[int], take: Take) -> str:
    """Have all of a crew play a part of the seeds each: a :data:`PlayTask` but for the crew."""
    said: Queue[Any] = Queue()

    def listen(worker: Any, left: list[int]) -> None:
        try:
            for message in worker.work(lambda: {"task": task.name, "seeds": list(left)}):
                if "record" in message and message["record"]["seed"] in left:
                    left.remove(message["record"]["seed"])
                said.put(message)
        except BaseException as error:
            said.put(error)

    busy, reason, spent = 0, "", ""
    for number, worker in enumerate(crew):
        if mine := list(seeds[number :: len(crew)]):
            Thread(target=listen, args=(worker, mine), daemon=True).start()
            busy += 1
    while busy:
        message = said.get()
        if isinstance(message, BaseException):
            raise message
        if "record" in message:
            take(as_record(message["record"]), message["trajectory"])
        else:
            busy -= 1
            reason, spent = reason or message["reason"], spent or message["spent"]
    if spent:
        raise SpentError(spent)
    return reason


class Player:
    """Plays seeds of tasks: a worker's part, in its own process."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.asked: Any = None

    def work(self, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Say every episode as it ends, and at last why not all were played, if so."""
        said: Queue[Any] = Queue()

        def take(record: Record, trajectory: dict[str, Any] | None) -> None:
            said.put({"record": json.loads(as_line(record)), "trajectory": trajectory})

        def play() -> None:
            reason = spent = ""
            try:
                with at_home(self.about["folder"], self.about["path"]):
                    self.asked = self.asked or self._prepared()
                    tasks = {task.name: task for task in self.asked.suite.tasks}
                    reason = self.asked.player(tasks[wanted["task"]], wanted["seeds"], take)
            except SpentError as error:
                spent = str(error)
            except BaseException as error:
                said.put(error)
                return
            said.put({"reason": reason, "spent": spent})

        Thread(target=play, daemon=True).start()
        while True:
            message = said.get()
            if isinstance(message, BaseException):
                raise message
            yield message
            if "reason" in message:
                return

    def _prepared(self) -> Any:
        wanted = self.about["versions"]
        for name, found in versions().items():
            if found != wanted.get(name):
                raise LangAgentError(
                    f"The node {os.uname().nodename} has {name} {found}, and the command "
                    f"{wanted.get(name, 'none')}: all nodes need the same versions."
                )
        args = from_dict(Evaluate, self.about["args"], "the evaluation")
        return self.about["prepare"](args, self.about["slots"])
