"""The commands ``lang-agent demos`` and ``lang-agent imitate``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lang_agent.cli_options import Count, Seed
from lang_agent.console import console, say
from lang_agent.decide import DecideConfig
from lang_agent.errors import LangAgentError
from lang_agent.learn_config import LearnConfig
from lang_agent.ranges import Range, check_ranges
from lang_agent.text_config import TextConfig
from lang_agent.train_config import TrainConfig

if TYPE_CHECKING:
    from lang_agent.rollout import Episode

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


@dataclass(frozen=True)
class Demos:
    """`demos`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    agent: str = "bot"
    """bot, random, a run or model folder, or a hub id; `lang-agent play --record` takes a
    person's."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 1000
    noise: Annotated[float, Range(0, 1)] = 0.0
    """The share of the bot's actions replaced by random ones; what it wanted is recorded too."""
    seed: Seed = 0
    """Of the first episode; the others follow it."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Processes in which the bot plays."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; unless told, as the policy was
    trained, and for any other model where it has a template."""
    on_env_error: str = "stop"
    """What becomes of an episode whose environment raises: stop, skip or retry."""
    out: str = "demonstrations.jsonl.gz"
    """The file; .gz compresses it."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.agent != "bot" and (self.noise or self.workers > 1):
            raise LangAgentError("noise and workers are the bot's alone.")


def demos(args: Demos) -> None:
    """Record demonstrations of the bot or another agent."""
    from lang_agent.demonstrations import (
        demonstrate,
        refuse_evaluation_seeds,
        write_demonstrations,
    )
    from lang_agent.evaluation import as_table, summarise
    from lang_agent.files import try_place

    file = Path(args.out)
    if file.exists() or file.is_symlink():
        raise LangAgentError(f"'{file}' is there already: choose another --out.")
    refuse_evaluation_seeds(range(args.seed, args.seed + args.episodes))
    try_place(file)
    if args.agent == "bot":
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
            yield episode

    write_demonstrations(file, args.env, noted())
    if seen:
        say(args.agent)
        console.print(as_table([summarise(args.env, seen)]))
    steps = sum(len(episode.steps) for episode in seen)
    say(f"{len(seen)} episodes, {steps} decisions: {file}")


def _played(args: Demos) -> Iterator[Episode]:
    from lang_agent.cli import make_agent
    from lang_agent.demonstrations import label_own
    from lang_agent.rollout import play
    from lang_agent.stepping import EnvErrors

    envs = [args.text.make(args.env) for _ in range(min(16, args.episodes))]
    agent = make_agent(args.agent, len(envs), args)
    seeds, errors = range(args.seed, args.seed + args.episodes), EnvErrors(args.on_env_error)
    for episode in play(agent, envs, seeds, errors=errors):
        yield label_own(episode)
