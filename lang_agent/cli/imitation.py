"""The commands ``lang-agent demos`` and ``lang-agent imitate``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lang_agent.cli.console import console, say
from lang_agent.cli.options import Demos, agent_of
from lang_agent.errors import LangAgentError
from lang_agent.learn.config import LearnConfig
from lang_agent.train.config import TrainConfig

if TYPE_CHECKING:
    from lang_agent.episode import Episode

IMITATE = TrainConfig(
    learn=LearnConfig(
        algorithm="imitation",
        epochs=1,
        minibatch_decisions=128,
        entropy_coef=0.0,
        value_coef=0.05,
        max_grad_norm=1.0,
        lr_final=0.05,
        target_kl=None,
    ),
    rollout_steps=2048,
    envs=32,
)
"""`imitate`'s defaults: those of `train`, and what differs where the answers are given."""


def demos(args: Demos) -> None:
    """Record demonstrations of the bot or another agent."""
    from lang_agent.cli.progress import Counting
    from lang_agent.evaluation.evaluate import summarise_episodes
    from lang_agent.evaluation.summary import as_table
    from lang_agent.files import try_place
    from lang_agent.learn.demonstrations import refuse_evaluation_seeds, write_demonstrations
    from lang_agent.train.demonstrate import demonstrate

    file = Path(args.out)
    if file.exists() or file.is_symlink():
        raise LangAgentError(f"'{file}' is there already: choose another --out.")
    refuse_evaluation_seeds(range(args.seed, args.seed + args.episodes))
    try_place(file)
    if args.agent == "expert":
        played: Iterator[Episode] = demonstrate(
            args.env,
            args.text,
            args.episodes,
            seed=args.seed,
            noise=args.noise,
            workers=args.workers,
            on_env_error=args.on_env_error,
        )
    else:
        played = _played(args)
    seen: list[Episode] = []

    def noted() -> Iterator[Episode]:
        for episode in played:
            seen.append(episode)
            counting.played(episode)
            yield episode

    with Counting(console, args.agent, args.episodes) as counting:
        write_demonstrations(file, args.env, noted())
    if seen:
        say(args.agent)
        say(as_table([summarise_episodes(args.env, seen)], width=console.width))
    steps = sum(len(episode.steps) for episode in seen)
    say(f"{len(seen)} episodes, {steps} decisions: {file}")


def _played(args: Demos) -> Iterator[Episode]:
    from lang_agent.rollout import play
    from lang_agent.stepping import EnvErrors
    from lang_agent.train.demonstrate import label_own

    envs = [args.text.make(args.env) for _ in range(min(16, args.episodes))]
    agent = agent_of(args, args.agent, len(envs))
    seeds, errors = range(args.seed, args.seed + args.episodes), EnvErrors(args.on_env_error)
    for episode in play(agent, envs, seeds, errors=errors):
        yield label_own(episode)
