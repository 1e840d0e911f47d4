"""Demonstrations as a stream: other processes have the expert play while the policy learns, and
nothing is kept of what was learned."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.language_env import PromptLimit
from lang_agent.learn.sequences import expert_choice
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.codec import Codec
from lang_agent.models.context import traces
from lang_agent.models.policy import LanguagePolicy
from lang_agent.processes import end_with
from lang_agent.rollout import play
from lang_agent.stepping import EnvErrors
from lang_agent.train.collect import Rollout, training_seeds
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_folder import Progress
from lang_agent.train.run_parts import make_env

PART = 20  # episodes that a process plays before it reports
AHEAD = 4  # parts that each process plays before they are wanted
KEPT = ("success", "part", "metrics", "judged", "invalid_action")
"""What is handed on of what the worlds say of a step."""


class Stream:
    """The expert's episodes of a run, in the order of their numbers: the same ones however many
    processes play them. Of several workers each has its own processes, which play every so many-th
    part, and all have all of the episodes."""

    def __init__(
        self, config: TrainConfig, policy: LanguagePolicy, workers: Workers = ALONE
    ) -> None:
        self.config, self.policy, self.workers = config, policy, workers
        self._processes: deque[PlayingProcess] = deque()
        self._round: dict[int, list[Episode]] = {}  # the parts that were handed round last

    def collect(
        self,
        progress: Progress,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        episodes: list[Episode] = []
        steps = 0
        while steps < self.config.rollout_steps:
            part, at = divmod(progress.episodes + len(episodes), PART)
            for episode in self._part(part)[at:]:
                episodes.append(episode)
                steps += len(episode.steps)
                if on_played:
                    on_played(episode)
                if steps >= self.config.rollout_steps:
                    break
        return Rollout(episodes)

    def close(self) -> None:
        for process in self._processes:
            process.close()
        self._processes, self._round = deque(), {}

    def _part(self, number: int) -> list[Episode]:
        """The episodes of a part, no earlier one than was asked for before. Each worker hands one
        part round at a time."""
        if number not in self._round:
            first = number - number % self.workers.size
            mine = self._played(first + self.workers.rank)
            self._round = dict(enumerate(self.workers.gather(mine), first))
        return self._round[number]

    def _played(self, number: int) -> list[Episode]:
        """The next part of this worker's, ``number``: its processes take turns."""
        count, size = self.config.imitation.processes, self.workers.size
        if not self._processes:
            limit = PolicyAgent(self.policy, 1, self.config.decide).prompt_limit
            about = (self.config, self.policy.codec, limit)
            firsts = range(number, number + count * size, size)
            self._processes.extend(PlayingProcess(at, count * size, *about) for at in firsts)
        self._processes.rotate(-1)
        return self._processes[-1].next_part()


class PlayingProcess:
    """A process that plays every so many-th part, from the ``first`` on, some ahead of what is
    asked for. It ends by itself when it is closed here, or when this process ends.

    It has a pipe of its own, whose other end it alone holds: a process that is killed half-way
    through a part is then noticed as the end of what there is to read, where
    ``ProcessPoolExecutor`` waits for the rest for good.
    """

    def __init__(
        self,
        first: int,
        every: int,
        config: TrainConfig,
        codec: Codec,
        limit: PromptLimit | None,
    ) -> None:
        spawn = get_context("spawn")
        self._parts, hands_over = spawn.Pipe(duplex=False)
        about = (hands_over, first, every, os.getpid(), config, codec, limit)
        spawn.Process(target=_hand_over_parts, args=about).start()
        hands_over.close()

    def next_part(self) -> list[Episode]:
        try:
            played = self._parts.recv()
        except (EOFError, OSError):
            raise LangAgentError(
                "A process that plays (imitation.processes) was killed, perhaps for want of "
                "memory: use fewer."
            ) from None
        if isinstance(played, Exception):
            raise played
        episodes: list[Episode] = played
        return episodes

    def close(self) -> None:
        self._parts.close()


# -- what the processes do -------------------------------------------------------------------------


class PartPlayer:
    """Plays parts of a run's episodes, within what the policy can read, and puts their decisions
    into token contexts."""

    def __init__(self, config: TrainConfig, codec: Codec, limit: PromptLimit | None) -> None:
        self.config, self.codec, self.env = config, codec, make_env(config)
        self.agent = ExpertAgent(config.imitation.noise, varied=True)
        self.agent.prompt_limit = limit

    def play(self, number: int) -> list[Episode]:
        """The episodes of a part."""
        config, first = self.config, number * PART
        played = play(
            self.agent,
            [self.env],
            itertools.islice(training_seeds(config.seed, first), PART),
            first_index=first,
            errors=EnvErrors(config.on_env_error),
        )
        return [self._placed(episode) for episode in sorted(played, key=lambda one: one.index)]

    def _placed(self, episode: Episode) -> Episode:
        """The episode as a learner needs it: up to the last step whose expert's choice is known."""
        taught = [at for at, step in enumerate(episode.steps) if expert_choice(step) is not None]
        steps = episode.steps[: max(taught, default=0) + 1]
        said = [(step.observation.prompt, step.decision.action) for step in steps]
        placed = [
            replace(
                step,
                decision=replace(step.decision, tokens=trace, by_expert=True),
                info={name: step.info[name] for name in KEPT if name in step.info},
            )
            for step, trace in zip(steps, traces(self.codec, said), strict=True)
        ]
        return replace(episode, steps=placed)


def _hand_over_parts(
    to: Connection,
    first: int,
    every: int,
    parent: int,
    config: TrainConfig,
    codec: Codec,
    limit: PromptLimit | None,
) -> None:
    """Play every so many-th part and hand it over, until nobody reads any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run is told, and ends us
    end_with(parent)
    ahead: deque[Future[None]] = deque()
    with suppress(BrokenPipeError), ThreadPoolExecutor(1) as handing_over:
        for part in _parts(itertools.count(first, every), config, codec, limit):
            ahead.append(handing_over.submit(to.send, part))
            while ahead and (ahead[0].done() or len(ahead) > AHEAD):
                ahead.popleft().result()


def _parts(
    numbers: Iterator[int], config: TrainConfig, codec: Codec, limit: PromptLimit | None
) -> Iterator[list[Episode] | Exception]:
    """The parts of these numbers, up to what went wrong."""
    try:
        player = PartPlayer(config, codec, limit)
        for number in numbers:
            yield player.play(number)
    except LangAgentError as error:
        yield error
    except Exception as error:
        yield RuntimeError("".join(traceback.format_exception(error)))
