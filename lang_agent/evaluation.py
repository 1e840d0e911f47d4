"""Evaluation: how often an agent succeeds on seeds that training never sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import gymnasium
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import binomtest

from lang_agent.rollout import Agent, Episode, play

EVALUATION_SEED = 1_000_000_000
"""The first seed of evaluation; training draws its seeds below it."""


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
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Evaluation]:
    """Play ``episodes`` episodes on consecutive seeds and sum them up, by task.

    Environments whose ``info`` names a ``task`` are summed up task by task and then all together.
    """
    played = []
    for episode in play(agent, envs, range(first_seed, first_seed + episodes)):
        played.append(episode)
        if on_episode:
            on_episode(episode)
    tasks: dict[str, list[Episode]] = {}
    for episode in played:
        task = episode.steps[-1].info.get("task", "")
        tasks.setdefault(f"{name} {task}".strip(), []).append(episode)
    summaries = [summarise(task, group) for task, group in sorted(tasks.items())]
    return summaries if len(tasks) == 1 else [*summaries, summarise(f"{name} (all)", played)]


def as_table(evaluations: Sequence[Evaluation], title: str = "") -> Table:
    """The evaluations as a table for the terminal."""
    table = Table(title=title or None, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("task", no_wrap=True)
    for column, width in (("episodes", 8), ("success", 7), ("95% CI", 11), ("return", 6),
                          ("steps", 5), ("invalid", 7)):  # fmt: skip
        table.add_column(column, justify="right", min_width=width)
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
        )
    return table


def as_json(evaluations: Sequence[Evaluation]) -> list[dict[str, object]]:
    """The evaluations as plain data."""
    return [asdict(row) for row in evaluations]
