"""Where the episodes of a run come from: played by the policy or with the expert, or read.

A rollout is a set of whole episodes, by their numbers: as many as those played before say will have
the steps that are wanted. So what is played depends on the run's seed alone, and not on how many
environments it is played in.
"""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import gymnasium
import torch

from lang_agent.agents.dagger import DAggerAgent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.learn.algorithms import algorithm_of, uses_critic
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.demonstrations import Demonstrations
from lang_agent.learn.hindsight import relabel
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sharding import acting
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED, derive
from lang_agent.stepping import EnvError, EnvErrors, describe
from lang_agent.train.config import TrainConfig
from lang_agent.train.curriculum import learnable
from lang_agent.train.run_folder import Progress

FIRST_LENGTH = 128  # steps that an episode is taken to have while none was played
LATE = 50  # episodes whose lengths say how long the next ones are
ENOUGH = 0.75  # of the steps wanted: with fewer, more episodes are played


@dataclass
class Rollout:
    """What an update learns from."""

    episodes: list[Episode]
    """In the order of their numbers."""
    relabelled: list[Episode] = field(default_factory=list)
    """Parts of them with goals that they reached (:mod:`lang_agent.learn.hindsight`)."""
    ahead: int = 0
    """How many of the episodes began before the policy's last update."""


Played = tuple[Episode, list[Episode]]
"""An episode, and parts of it with goals that they reached."""


class Collector(Protocol):
    """Where rollouts come from."""

    def collect(
        self,
        progress: Progress,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        """The rollout after ``progress``, when the part ``done`` of the run lies behind;
        ``on_played`` is called with each episode as it ends."""

    def close(self) -> None:
        """End the processes that were started, if any; :meth:`collect` starts them anew."""


class Reader:
    """Reads demonstrations, pass after pass; each of several workers reads them all."""

    def __init__(self, demonstrations: Demonstrations, steps: int) -> None:
        self.demonstrations, self.steps = demonstrations, steps

    def collect(
        self,
        progress: Progress,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        return Rollout(self.demonstrations.after(progress.episodes, self.steps))

    def close(self) -> None:
        pass


class Player:
    """Plays episodes, as many at once as there are environments; of several workers each plays its
    share, and all have the whole rollout."""

    def __init__(
        self,
        config: TrainConfig,
        learn: LearnConfig,
        policy: LanguagePolicy,
        envs: Sequence[gymnasium.Env[str, str]],
        workers: Workers = ALONE,
    ) -> None:
        self.config, self.learn, self.policy, self.envs = config, learn, policy, envs
        self.workers = workers

    def collect(
        self,
        progress: Progress,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None = None,
    ) -> Rollout:
        if self.config.curriculum == "learnable":
            outcomes = [(int(part), success) for success, _, part, _ in progress.recent]
            for env in map(language_env, self.envs):
                env.drawn_weights = learnable(env.weights, outcomes)
        rollout, steps, first = Rollout([]), 0, progress.episodes
        lengths: Sequence[float] = [length for *_, length in progress.recent[-LATE:]]
        while steps < ENOUGH * self.config.rollout_steps:
            size = self.learn.group_size or 1
            count = episodes_for(self.config.rollout_steps - steps, lengths, size)
            count = self.count(first, count)
            for episode, relabelled in self.played(first, count, done, errors, on_played):
                rollout.episodes.append(episode)
                rollout.relabelled += relabelled
            first += count
            played = [len(episode.steps) for episode in rollout.episodes]
            steps, lengths = sum(played), played or lengths
        return rollout

    def close(self) -> None:
        pass

    def count(self, first: int, wanted: int) -> int:
        """How many episodes are played from the number ``first`` on, where so many are wanted."""
        return wanted

    def played(
        self,
        first: int,
        count: int,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None,
    ) -> list[Played]:
        """The ``count`` episodes from the number ``first`` on."""
        share = partial(self._share, first, count, done, on_played=on_played)
        return all_played(self.workers, share, errors)

    def _share(
        self,
        first: int,
        count: int,
        done: float,
        errors: EnvErrors,
        on_played: Callable[[Episode], None] | None,
    ) -> list[Played]:
        """This worker's share of the ``count`` episodes from the number ``first`` on, played."""
        config, size = self.config, self.learn.group_size or 1
        relabelled: dict[int, list[Episode]] = {}

        def on_end(episode: Episode, env: gymnasium.Env[str, str]) -> None:
            seed = derive(config.seed, "hindsight", episode.index)
            relabelled[episode.index] = relabel(
                episode,
                language_env(env),
                self.policy,
                config.hindsight,
                self.learn,
                torch.Generator().manual_seed(seed),
            )

        seeds = itertools.islice(training_seeds(config.seed, first // size), count // size)
        played = play(
            self.agent(done),
            self.envs,
            seeds,
            group_size=size,
            first_index=first,
            share=(self.workers.rank, self.workers.size),
            on_end=on_end if config.hindsight else None,
            errors=errors,
        )
        episodes = []
        with acting(self.policy):
            for episode in played:
                episodes.append(episode)
                if on_played:
                    on_played(episode)
        return [(episode, relabelled.get(episode.index, [])) for episode in episodes]

    def agent(self, done: float) -> PolicyAgent:
        """Who plays when the part ``done`` of the run lies behind. By imitation the expert's share
        of the episodes falls linearly from 1 to ``expert_final``, within the first ``hand_over`` of
        the run."""
        config, slots = self.config, self.config.envs
        if not algorithm_of(self.learn).imitates:
            critic = uses_critic(self.learn)
            return PolicyAgent(self.policy, slots, config.decide, critic=critic)
        imitation = config.imitation
        left = max(1 - done / imitation.hand_over, 0.0) if imitation.hand_over else 0.0
        share = imitation.expert_final + (1 - imitation.expert_final) * left
        noise = imitation.noise
        return DAggerAgent(self.policy, slots, config.decide, expert_share=share, noise=noise)


def all_played(
    workers: Workers, play_share: Callable[[EnvErrors], list[Played]], errors: EnvErrors
) -> list[Played]:
    """What all workers play, in the order of the episodes' numbers, with everybody's ``errors``.

    Where one of them fails, all do, so that none waits for the others.
    """
    if workers.size == 1:
        return sorted(play_share(errors), key=lambda played: played[0].index)
    own = EnvErrors(errors.rule, in_a_row=errors.in_a_row)
    failure, played, packed = None, [], b""
    try:
        played = play_share(own)
        packed = pickle.dumps(played)
    except Exception as error:
        failure = error
    said = "" if failure is None else describe(failure)
    told = workers.gather((packed, [str(error) for error in own.seen], own.left_out, said))
    if failure is not None:
        raise failure
    for rank, (packed, seen, left_out, said) in enumerate(told):
        if said:
            raise LangAgentError(f"Worker {rank + 1} of {workers.size} failed. {said}")
        played = played + ([] if rank == workers.rank else pickle.loads(packed))
        errors.seen += map(EnvError, seen)
        errors.left_out += left_out
    errors.in_a_row = own.in_a_row
    return sorted(played, key=lambda played: played[0].index)


def episodes_for(steps: int, lengths: Sequence[float], group_size: int) -> int:
    """How many episodes, in whole groups, will have about so many steps, if they are as long as
    ``lengths`` say."""
    mean = sum(lengths) / len(lengths) if lengths else FIRST_LENGTH
    return max(math.ceil(steps / mean / group_size), 1) * group_size


def training_seeds(run_seed: int, first_episode: int) -> Iterator[int]:
    """Episode seeds of a run from its n-th episode on, all below ``EVALUATION_SEED``."""
    first = run_seed * 7_919_003 % (EVALUATION_SEED - 100_000_000)
    return itertools.count(first + first_episode)
