"""A Ray cluster: the connection to it, what it has room for, and what a command and its workers
there tell each other.

A command that is given ``--address`` connects to the cluster
(:func:`lang_agent.ray_connection.connected`); what it starts there ends with it. Ray is imported
when it is asked for.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lang_agent.errors import LangAgentError

MOST_DEATHS = 10
"""Workers that may die one after another while a run gets no further."""


def room_for(cpus: int = 1, gpus: int = 0) -> int:
    """How many workers with so many cores and GPUs each the cluster has room for, whether or not
    others use it just now; where it grows by itself, at its largest."""
    import ray
    from ray._private.state import state

    def fit(resources: Mapping[str, float]) -> int:
        wanted = {"CPU": cpus, "GPU": gpus}
        return min(int(resources.get(name, 0) // each) for name, each in wanted.items() if each)

    largest = state.get_max_resources_from_cluster_config()
    if largest:
        return fit(largest)
    return sum(fit(node["Resources"]) for node in ray.nodes() if node["Alive"])


def refuse_too_many(workers: int, address: str, cpus: int = 1, gpus: int = 0) -> None:
    """Raise :class:`LangAgentError` where the cluster has too little for so many workers: Ray would
    wait for more without end."""
    room = room_for(cpus, gpus)
    if workers > room:
        each = "a GPU" if gpus else "a core" if cpus == 1 else f"{cpus} cores"
        raise LangAgentError(
            f"workers={workers} need {each} each, and the Ray cluster at {address!r} has room for "
            f"{room}: set workers to that, or add nodes."
        )


class Channel:
    """What a command and its workers on the cluster tell each other: lines to print, how it ended,
    and whether to stop."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, bool]] = []
        self.end: tuple[str, str] | None = None
        self.stops = False
        self.begun = 0
        self.place: Any = None
        self.deaths = 0

    def say(self, line: str, error: bool) -> None:
        """Have the command print a line, on standard error or not."""
        self.lines.append((line, error))

    def read(self) -> list[tuple[str, bool]]:
        """The lines since the last time."""
        lines, self.lines = self.lines, []
        return lines

    def stop(self) -> None:
        """Have the workers stop when they next can."""
        self.stops = True

    def is_to_stop(self) -> bool:
        """Whether they shall."""
        return self.stops

    def begin(self, place: Any) -> int:
        """The work begins, or begins again, at ``place``; returns how often it began before."""
        if place != self.place:
            self.place, self.deaths = place, 0
        self.begun += 1
        return self.begun - 1

    def finish(self, how: str, sentence: str = "") -> None:
        """It has ended: done, stopped or failed. What is said first holds."""
        self.end = self.end or (how, sentence)

    def ending(self) -> tuple[str, str] | None:
        """How it has ended, if it has."""
        return self.end

    def died(self, names: str, why: str) -> None:
        """Workers died, so that the work is begun again; where it gets no further, it fails."""
        self.deaths += 1
        if self.end is None and self.deaths >= MOST_DEATHS:
            self.finish(
                "failed",
                f"{self.deaths} times in a row workers died without any progress, at last: {why}",
            )
        elif self.end is None:
            self.say(f"{names} died: going on from the last checkpoint.", False)


def open_channel() -> Any:
    """A :class:`Channel`, as an actor on this node: it lives as long as the command."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Channel).options(num_cpus=0, scheduling_strategy=here).remote()


class Lines:
    """A text stream whose lines a :class:`Channel` is told, in place of a worker's own.

    Args:
        before: stands before every line.
    """

    encoding = "utf-8"

    def __init__(self, channel: Any, error: bool = False, before: str = "") -> None:
        self.channel, self.error, self.before = channel, error, before
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if not line and self.before:
                continue
            self.channel.say.remote(self.before + line, self.error)
        return len(text)

    def flush(self) -> None:
        """Half a line waits for its end."""

    def isatty(self) -> bool:
        return False


def ask(call: Any) -> Any:
    """What an actor answers."""
    import ray

    return ray.get(call)


@contextmanager
def at_home(folder: str, path: Sequence[str]) -> Iterator[None]:
    """Within, a worker stands in the command's folder and finds the modules that it does.

    Raises:
        LangAgentError: this node does not see the folder.
    """
    before = os.getcwd()
    try:
        os.chdir(folder)
    except OSError as error:
        raise LangAgentError(
            f"The node {socket.gethostname()} cannot see '{folder}' ({error.strerror}): all nodes "
            "must share the folder that the command is given in, and that of its results."
        ) from None
    added = [entry for entry in path if entry not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for entry in added:
            with suppress(ValueError):
                sys.path.remove(entry)
        with suppress(OSError):
            os.chdir(before)
