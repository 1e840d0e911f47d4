"""Which collector a run's configuration asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium

from lang_agent.learn.algorithms import algorithm_of
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.demonstrations import Demonstrations
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.policy import LanguagePolicy
from lang_agent.train.ahead import AsyncPlayer
from lang_agent.train.collect import Collector, Player, Reader
from lang_agent.train.config import TrainConfig
from lang_agent.train.stream import Stream


def make_collector(
    config: TrainConfig,
    learn: LearnConfig,
    policy: LanguagePolicy,
    envs: Sequence[gymnasium.Env[str, str]],
    workers: Workers = ALONE,
) -> Collector:
    """Where the run's episodes come from: a file of demonstrations, other processes, or ``envs``
    that are played here."""
    if algorithm_of(learn).imitates and config.imitation.demonstrations:
        file = Path(config.imitation.demonstrations)
        return Reader(Demonstrations(file, policy, config.seed), config.rollout_steps)
    if config.imitation.processes:
        return Stream(config, policy, workers)
    if config.async_envs:
        return AsyncPlayer(config, learn, policy)
    return Player(config, learn, policy, envs, workers)
