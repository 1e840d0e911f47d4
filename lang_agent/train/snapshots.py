"""Episodes of a run as it learns, step by step: the same seeds again and again, for the report.

A snapshot is a folder of results in the run folder, called by the number of updates. What is played
for it moves nothing in the run: it has environments, an agent and streams of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium

from lang_agent.agents.make import about_policy
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.evaluation.records import SPEC_FILE, Spec, read_results, versions
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.run_records import SNAPSHOTS
from lang_agent.evaluation.tasks import Task, into_tasks
from lang_agent.files import discard
from lang_agent.models.policy import LanguagePolicy
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.config import describe
from lang_agent.train.config import TrainConfig


def take_snapshot(
    run: Path,
    updates: int,
    policy: LanguagePolicy,
    config: TrainConfig,
    make_env: Callable[[], gymnasium.Env[str, str]],
) -> None:
    """Play the first held-out seeds as the policy stands, deciding as in training. One that is
    there whole, of a run that was killed and resumed, is left as it is."""
    folder = run / SNAPSHOTS / f"{updates:06}"
    if (folder / SPEC_FILE).is_file() and not read_results(folder).missing:
        return
    discard(folder)
    env = "mixture" if config.mixture else config.env
    text, tasks = into_tasks(config.text, [Task(env, env)])
    agent = PolicyAgent(policy, config.snapshot_episodes, config.decide)
    agent.about = {"name": str(run), **about_policy(policy, config.decide)}
    spec = Spec(
        agent={**agent.about, "words": describe(text)},
        tasks=tasks,
        first_seed=EVALUATION_SEED,
        episodes=config.snapshot_episodes,
        versions=versions(),
    )
    slots = config.snapshot_episodes
    player = TaskPlayer(agent, lambda task: make_env(), slots=slots, keep_trajectories=True)
    evaluate_panel(spec, folder, player)


def forget_snapshots_after(run: Path, updates: int) -> None:
    """Remove those of later updates than a run goes on from: it makes them again."""
    for folder in (run / SNAPSHOTS).glob("*"):
        if folder.name.isdigit() and int(folder.name) > updates:
            discard(folder)
