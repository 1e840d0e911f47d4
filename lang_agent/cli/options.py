"""The options of the commands; those of ``train`` are a :class:`TrainConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from lang_agent.cli.console import as_text
from lang_agent.episode import Agent
from lang_agent.errors import LangAgentError
from lang_agent.models.decide import DecideConfig
from lang_agent.ranges import Range, check_ranges
from lang_agent.text_env.config import TextConfig

Count = Annotated[int, Range(1, 10**9)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Threads = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class Evaluate:
    """`evaluate`'s options."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("BabyAI-GoToLocal-v0",)
    """Gymnasium ids; each is a row of the table."""
    policy: str = "random"
    """random, expert, constant:<action>, babyai (the one that ships), a run or model folder, or a
    hub id."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 200
    slots: Annotated[int, Range(1, 100_000)] = 16
    """Episodes played at once."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; unless told, as the policy was
    trained, and for any other model where it has a template."""
    seed: Seed = 0
    """Of the draws; the episodes' own seeds are always the same ones."""
    on_env_error: str = "stop"
    """What becomes of an episode whose environment raises: stop, skip or retry."""
    json: str | None = None
    """Also write the figures to this file."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Play:
    """`play`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    agent: str = "human"
    """human, random, expert, constant:<action>, babyai (the one that ships), a run or model folder,
    or a hub id."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 1
    decide: DecideConfig = field(default_factory=DecideConfig)
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; unless told, as the policy was
    trained, and for any other model where it has a template."""
    seed: Seed = 0
    gif: str | None = None
    """Write the episode as a GIF instead of playing in the terminal."""
    record: str | None = None
    """Add the finished episodes to this file of demonstrations, for `lang-agent imitate`."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Demos:
    """`demos`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    agent: str = "expert"
    """expert, random, a run or model folder, or a hub id; `lang-agent play --record` takes a
    person's."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 1000
    noise: Annotated[float, Range(0, 1)] = 0.0
    """The share of the expert's actions replaced by random ones; what it wanted is recorded too."""
    seed: Seed = 0
    """Of the first episode; the others follow it."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Processes in which the expert plays."""
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
        if self.agent != "expert" and (self.noise or self.workers > 1):
            raise LangAgentError("noise and workers are the expert's alone.")


@dataclass(frozen=True)
class Envs:
    """`envs`'s options."""

    search: tyro.conf.Positional[str] = ""
    """Only ids that contain this."""


@dataclass(frozen=True)
class ShowPrompt:
    """`prompt`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    text: TextConfig = field(default_factory=TextConfig)
    seed: Seed = 0
    do: tuple[str, ...] = ()
    """Actions to take first."""
    model: str = "nano"
    """Whose tokenizer counts: a size, a run or model folder, or a hub id."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Bench:
    """`bench`'s options."""

    quick: bool = False
    """Shorter runs, under a minute in all."""
    threads: Threads | None = None
    """Processor threads of torch."""
    json: str | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Export:
    """`export`'s options."""

    run: tyro.conf.Positional[str]
    """A run folder."""
    out: tyro.conf.Positional[str]
    """The new folder."""
    half: bool = False
    """Weights of 16 bits instead of 32: half the size."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""


def agent_of(args: Evaluate | Play | Demos, name: str, slots: int) -> Agent:
    """The agent called ``name``, acting as a command's options say."""
    from lang_agent.agents.make import make_agent

    return make_agent(
        as_text(name),
        slots,
        args.decide,
        precision=args.precision,
        chat=args.chat,
        trust=args.trust,
    )
