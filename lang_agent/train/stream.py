"""Demonstrations as a stream: other processes have the expert play while the policy learns, and
nothing is kept of what was learned."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

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
AHEAD = 4  # parts for each process that are played before they are wanted
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
        self._pool: ProcessPoolExecutor | None = None
        self._parts: dict[int, Future[list[Episode]]] = {}  # that this worker's processes play
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
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool, self._parts, self._round = None, {}, {}

    def _part(self, number: int) -> list[Episode]:
        """The episodes of a part. Each worker hands one part round at a time."""
        if number not in self._round:
            first = number - number % self.workers.size
            mine = self._played(first + self.workers.rank)
            self._round = dict(enumerate(self.workers.gather(mine), first))
        return self._round[number]

    def _played(self, number: int) -> list[Episode]:
        """The episodes of a part of this worker's; its next ones are begun, those before it are
        forgotten."""
        processes, size = self.config.imitation.processes, self.workers.size
        if self._pool is None:
            spawn = get_context("spawn")
            limit = PolicyAgent(self.policy, 1, self.config.decide).prompt_limit
            about = (self.config, self.policy.codec, limit)
            self._pool = ProcessPoolExecutor(processes, spawn, _prepare, about)
        try:
            for coming in range(number, number + (1 + AHEAD * processes) * size, size):
                if coming not in self._parts:
                    self._parts[coming] = self._pool.submit(_play, coming)
            for before in [one for one in self._parts if one < number]:
                del self._parts[before]
            return self._parts[number].result()
        except BrokenProcessPool:
            raise LangAgentError(
                f"One of the {processes} processes that play was killed, perhaps for want of "
                "memory: use fewer."
            ) from None


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


_player: PartPlayer


def _prepare(config: TrainConfig, codec: Codec, limit: PromptLimit | None) -> None:
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run is told, and ends us
    end_with(os.getppid())
    _player = PartPlayer(config, codec, limit)


def _play(number: int) -> list[Episode]:
    return _player.play(number)
