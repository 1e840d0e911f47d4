"""Work on a Ray cluster that says what it has done piece by piece, and is begun again elsewhere
where its worker dies.

Ray is imported here: ask :func:`lang_agent.ray_connection.connected` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from lang_agent.bridges.ray_cluster import MOST_DEATHS
from lang_agent.errors import LangAgentError


class Worker:
    """An actor, started anew where it dies.

    Args:
        kind: its class, whose ``work`` is a generator.
        arguments: of the class.
    """

    def __init__(self, kind: type, *arguments: Any, cpus: int = 1, gpus: float = 0) -> None:
        remote: Any = ray.remote(kind).options(num_cpus=cpus, num_gpus=gpus, max_restarts=-1)
        self._actor = remote.remote(*arguments)

    def work(self, left: Callable[[], Any]) -> Iterator[Any]:
        """What the actor's ``work`` yields of what is ``left``; of what is left then, where the
        actor dies on the way.

        Raises:
            LangAgentError: it raised one, or died again and again without yielding anything.
        """
        deaths = 0
        while True:
            answers = self._actor.work.options(num_returns="streaming").remote(left())
            try:
                for answer in answers:
                    yield ray.get(answer)
                    deaths = 0
                return
            except RayTaskError as error:
                cause = error.cause
                kind = "" if isinstance(cause, LangAgentError) else f"{type(cause).__name__}: "
                raise LangAgentError(f"{kind}{cause}") from None
            except RayActorError as error:
                deaths += 1
                if deaths == MOST_DEATHS:
                    why = " ".join(str(error).split())
                    raise LangAgentError(f"A worker died {deaths} times in a row: {why}") from None
