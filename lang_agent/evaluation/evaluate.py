"""Evaluation in memory: how often an agent succeeds on seeds that training never sees.

:func:`lang_agent.evaluation.run.evaluate_panel` plays several tasks and keeps every episode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gymnasium

from lang_agent.episode import Agent, Episode
from lang_agent.evaluation.records import Record
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
    share: tuple[int, int] = (0, 1),
    gather: Callable[[Any], list[Any]] | None = None,
    on_episode: Callable[[Episode], None] | None = None,
    on_env_error: str = "stop",
) -> list[Evaluation]:
    """Play ``episodes`` episodes on consecutive seeds and sum them up, by task.

    Environments whose ``info`` names a ``task`` are summed up task by task and then all together.

    Args:
        draw_seed, share: as of :func:`lang_agent.rollout.play`.
        gather: gives, of what each process has that plays a share, the list of everybody's.
        on_env_error: stop, skip or retry, as of :class:`lang_agent.stepping.EnvErrors`.

    Raises:
        EvaluationError: an environment raised; it holds the sums of the episodes finished before.
    """
    require("episodes", episodes, episodes >= 1, "1 or more")
    played: list[Record] = []
    errors = EnvErrors(on_env_error)
    failure: EnvError | None = None
    seeds = range(first_seed, first_seed + episodes)
    try:
        for episode in play(
            agent, envs[:episodes], seeds, draw_seed=draw_seed, share=share, errors=errors
        ):
            played.append(record_of(name, episode))
            if on_episode:
                on_episode(episode)
    except EnvError as error:
        failure = error
    seen = [str(error) for error in errors.seen]
    told = [(played, seen, str(failure or ""))]
    if gather is not None:
        told = gather(told[0])
    everybodys = [record for records, _, _ in told for record in records]
    seen = [text for _, texts, _ in told for text in texts]
    rows = _by_task(name, everybodys, len(seen))
    if failure is not None:
        raise EvaluationError(failure, rows) from failure.__cause__
    for _, _, said in told:
        if said:
            raise EvaluationError(EnvError(said), rows)
    if not everybodys:
        raise EvaluationError(EnvError(seen[-1]), [])
    return rows


class EvaluationError(EnvError):
    """An environment's error in an evaluation; ``rows`` sum up the episodes finished before it."""

    def __init__(self, error: EnvError, rows: list[Evaluation]) -> None:
        super().__init__(str(error))
        self.rows = rows


def summarise_episodes(task: str, episodes: Sequence[Episode]) -> Evaluation:
    """The :class:`Evaluation` of at least one finished episode."""
    return summarise(task, [record_of(task, episode) for episode in episodes])


def _by_task(name: str, played: Sequence[Record], errors: int) -> list[Evaluation]:
    tasks: dict[str, list[Record]] = {}
    for record in played:
        tasks.setdefault(f"{name} {record.part}".strip(), []).append(record)
    rows = [summarise(task, group) for task, group in sorted(tasks.items())]
    if len(rows) > 1:
        rows.append(summarise(f"{name} {ALL}".strip(), played))
    return [*rows[:-1], *(replace(row, env_errors=errors) for row in rows[-1:])]
