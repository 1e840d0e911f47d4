"""Evaluation: how often an agent succeeds on seeds that training never sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import gymnasium
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import binomtest

from lang_agent.episode import Agent, Episode
from lang_agent.ranges import require
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.stepping import EnvError, EnvErrors


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one task, summed up."""

    task: str
    episodes: int
    success: float
    success_low: float  # Wilson 95% interval
    success_high: float
    mean_return: float  # undiscounted
    mean_length: float  # steps
    invalid_rate: float  # invalid actions a step
    env_errors: int = 0  # exceptions of the environment, on the last row of an evaluation


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """The Wilson score interval at 95% (Wilson 1927)."""
    interval = binomtest(successes, episodes).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def summarise(task: str, episodes: Sequence[Episode]) -> Evaluation:
    """The :class:`Evaluation` of at least one finished episode."""
    count, successes = len(episodes), sum(episode.success for episode in episodes)
    low, high = wilson(successes, count)
    steps = sum(len(episode.steps) for episode in episodes)
    return Evaluation(
        task=task,
        episodes=count,
        success=successes / count,
        success_low=low,
        success_high=high,
        mean_return=sum(episode.total_reward for episode in episodes) / count,
        mean_length=steps / count,
        invalid_rate=sum(episode.invalid_actions for episode in episodes) / max(steps, 1),
    )


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


def _by_task(name: str, played: Sequence[Episode], errors: EnvErrors) -> list[Evaluation]:
    tasks: dict[str, list[Episode]] = {}
    for episode in played:
        task = episode.steps[-1].info.get("task", "")
        tasks.setdefault(f"{name} {task}".strip(), []).append(episode)
    rows = [summarise(task, group) for task, group in sorted(tasks.items())]
    if len(rows) > 1:
        rows.append(summarise(f"{name} (all)".strip(), played))
    return [*rows[:-1], *(replace(row, env_errors=len(errors.seen)) for row in rows[-1:])]


def as_table(evaluations: Sequence[Evaluation], title: str = "") -> Table:
    """The evaluations as a table for the terminal."""
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("task", no_wrap=True)
    for column, width in (("episodes", 8), ("success", 7), ("95% CI", 11), ("return", 6),
                          ("steps", 5), ("invalid", 7)):  # fmt: skip
        table.add_column(column, justify="right", min_width=width)
    failed = any(row.env_errors for row in evaluations)
    if failed:
        table.add_column("errors", justify="right")
    shown = ""
    for row in evaluations:
        env_id, _, task = row.task.partition(" ")
        if task and env_id != shown:  # an environment's tasks stand below it
            table.add_row(env_id)
            shown = env_id
        table.add_row(
            f"  {task}" if task else env_id,
            str(row.episodes),
            f"{row.success:.3f}",
            f"{row.success_low:.3f}-{row.success_high:.3f}",
            f"{row.mean_return:.3f}",
            f"{row.mean_length:.1f}",
            f"{row.invalid_rate:.1%}",
            *([str(row.env_errors)] if failed else []),
        )
    return table


def as_json(evaluations: Sequence[Evaluation]) -> list[dict[str, object]]:
    """The evaluations as plain data."""
    return [asdict(row) for row in evaluations]
