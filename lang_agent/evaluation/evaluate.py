"""Evaluation in memory: how often an agent succeeds on seeds that training never sees.

:func:`lang_agent.evaluation.run.evaluate_panel` plays several tasks and keeps every episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import gymnasium

from lang_agent.episode import Agent, Episode
from lang_agent.evaluation.run import record_of
from lang_agent.evaluation.summary import ALL, Evaluation, summarise
from lang_agent.ranges import require
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.stepping import EnvError, EnvErrors


def evaluate(
    agent: Agent,
    envs: Sequence[gymnasium.Env[str, str]],
    episodes: int,
    *,
    name: str = "",
    first_seed: int = EVALUATION_SEED,
    draw_seed: int = 0,
    on_episode: Callable[[Episode], None] | None = None,
    on_env_error: str = "stop",
) -> list[Evaluation]:
    """Play ``episodes`` episodes on consecutive seeds and sum them up, by task.

    Environments whose ``info`` names a ``task`` are summed up task by task and then all together.

    Args:
        draw_seed: as of :func:`lang_agent.rollout.play`.
        on_env_error: stop, skip or retry, as of :class:`lang_agent.stepping.EnvErrors`.

    Raises:
        EvaluationError: an environment raised; it holds the sums of the episodes finished before.
    """
    require("episodes", episodes, episodes >= 1, "1 or more")
    played: list[Episode] = []
    errors = EnvErrors(on_env_error)
    seeds = range(first_seed, first_seed + episodes)
    try:
        for episode in play(agent, envs[:episodes], seeds, draw_seed=draw_seed, errors=errors):
            played.append(episode)
            if on_episode:
                on_episode(episode)
    except EnvError as error:
        raise EvaluationError(error, _by_task(name, played, errors)) from error.__cause__
    if not played:
        raise EvaluationError(errors.seen[-1], [])
    return _by_task(name, played, errors)


class EvaluationError(EnvError):
    """An environment's error in an evaluation; ``rows`` sum up the episodes finished before it."""

    def __init__(self, error: EnvError, rows: list[Evaluation]) -> None:
        super().__init__(str(error))
        self.rows = rows


def summarise_episodes(task: str, episodes: Sequence[Episode]) -> Evaluation:
    """The :class:`Evaluation` of at least one finished episode."""
    return summarise(task, [record_of(task, episode) for episode in episodes])


def _by_task(name: str, played: Sequence[Episode], errors: EnvErrors) -> list[Evaluation]:
    tasks: dict[str, list[Episode]] = {}
    for episode in played:
        task = episode.steps[-1].info.get("task", "")
        tasks.setdefault(f"{name} {task}".strip(), []).append(episode)
    rows = [summarise_episodes(task, group) for task, group in sorted(tasks.items())]
    if len(rows) > 1:
        rows.append(summarise_episodes(f"{name} {ALL}".strip(), played))
    return [*rows[:-1], *(replace(row, env_errors=len(errors.seen)) for row in rows[-1:])]
