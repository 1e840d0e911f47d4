"""The options of the commands; those of ``train`` are a :class:`TrainConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from lang_agent.agents.chat import ChatConfig
from lang_agent.cli.console import as_text
from lang_agent.episode import Agent
from lang_agent.errors import LangAgentError
from lang_agent.models.decide import DecideConfig
from lang_agent.ranges import Range, check_ranges
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.config import TextConfig

Count = Annotated[int, Range(1, 10**9)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Threads = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class Evaluate:
    """`evaluate`'s options."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """Environments, each an id, or in quotes an id and arguments: 'ID name=value ...'."""
    suite: str | None = None
    """A suite of tasks by its name (`lang-agent suites` lists them), or a .toml file."""
    agent: str = "random"
    """random, expert, human, constant:PHRASE, babyai (which ships), a run or model folder, a
    hub id, untrained:SIZE, chat:MODEL (a server's), sb3:FILE.zip (a policy of
    Stable-Baselines3, with --trust), or module:name for one of your own."""
    out: str | None = None
    """The folder for the results; one of its own in results/ by default. The same again goes on
    where it stopped."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 200
    """Of each task."""
    seed: Seed = EVALUATION_SEED
    """Of each task's first episode; the others follow it."""
    slots: Annotated[int, Range(1, 100_000)] = 16
    """Episodes played at once."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Processes that play side by side, each a part of the episodes and of the slots."""
    address: str | None = None
    """Have the workers play on a Ray cluster (extra ray): local, auto, or HOST:PORT."""
    trajectories: bool = False
    """Also write every step: what was read, might have been said and was said."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; by default as the policy was
    trained, and for any other model where it has a template."""
    json: str | None = None
    """Also write the table to this file."""
    remote: ChatConfig = field(default_factory=ChatConfig)
    examples: str | None = None
    """A file of demonstrations (`lang-agent demos`) whose episodes stand before every prompt."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Play:
    """`play`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    """An id, or in quotes an id and arguments for the world: 'ID name=value ...'."""
    agent: str = "human"
    """human, or as of `lang-agent evaluate`."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 1
    """One after another; on the screen a person begins the next with a key."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; by default as the policy was
    trained, and for any other model where it has a template."""
    seed: Seed = 0
    """Of the first episode; the others follow it."""
    film: str | None = None
    """Write the episodes to this .gif or .mp4 file (extra video) instead of showing them."""
    fps: Annotated[float, Range(above=0, high=60)] | None = None
    """Frames a second of the film."""
    plain: bool = False
    """Line by line, without a screen, as where there is no terminal to draw on."""
    strict: bool = False
    """Send what is typed to the world even where it is no phrase, as on a pipe."""
    record: str | None = None
    """Add the finished episodes to this file of demonstrations, for `lang-agent imitate`."""
    remote: ChatConfig = field(default_factory=ChatConfig)
    examples: str | None = None
    """A file of demonstrations (`lang-agent demos`) whose episodes stand before every prompt."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Demos:
    """`demos`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    """An environment's id."""
    agent: str = "expert"
    """As of `lang-agent evaluate`; `lang-agent play --record` takes a person's."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Count = 1000
    """How many are recorded."""
    noise: Annotated[float, Range(0, 1)] = 0.0
    """The share of the expert's actions replaced by random ones; what it wanted is recorded too."""
    seed: Seed = 0
    """Of the first episode; the others follow it."""
    workers: Annotated[int, Range(1, 1024)] = 1
    """Processes in which the expert plays."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; by default as the policy was
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
class Compare:
    """`compare`'s options."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """Folders of results, of the same panel; those of an agent's several training seeds in one
    argument, with commas between."""
    json: str | None = None
    """Also write the figures to this file."""
    markdown: str | None = None
    """Also write the leaderboard to this file."""


@dataclass(frozen=True)
class Replay:
    """`replay`'s options."""

    folder: tyro.conf.Positional[str]
    """A folder of results with trajectories."""
    episode: Annotated[int, Range(0, 10**9)] | None = None
    """Only this one, counted from 0 in the order of tasks and seeds; it is shown step by step."""
    film: str | None = None
    """Write the episode to this .gif or .mp4 file (extra video) as well."""
    trust: bool = False
    """Import what the results name, wherever it lies: a stranger's can run anything."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.film and self.episode is None:
            raise LangAgentError("--film takes one episode: name it with --episode.")


@dataclass(frozen=True)
class Report:
    """`report`'s options."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """Folders of results, run folders, or both."""
    out: str = "report.html"
    """The page, one file that needs nothing else."""
    episodes: Count = 200
    """How many tasks' seeds are shown step by step, of each panel: those in which an agent failed
    first."""
    explain: bool = False
    """Where a choice was close or not the expert's, ask the agent again without each part of the
    prompt: which of them moved it (200 steps at most)."""
    watch: bool = False
    """Make the page anew as runs and evaluations go on."""
    trust: bool = False
    """Import what the results name, wherever it lies: a stranger's can run anything."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.folders:
            raise LangAgentError("A report needs a folder of results or of a run.")
        if self.watch and self.explain:
            raise LangAgentError("A report is either watched or explained, not both.")


FORMATS = ("balrog", "demonstrations", "datasets", "minari", "sft")
EXPORT_FORMATS = ("transformers", "onnx")


@dataclass(frozen=True)
class Convert:
    """`convert`'s options."""

    source: tyro.conf.Positional[str]
    """A file of demonstrations, a folder of results with trajectories, a dataset's folder or a
    Minari dataset; for balrog a folder of results."""
    out: tyro.conf.Positional[str]
    """A file, a folder, or the name of a Minari dataset (name-v0)."""
    to: str = "demonstrations"
    """balrog (its folder of results), demonstrations (ours), datasets (a folder of Hugging Face's
    datasets), minari, or sft (a dataset of prompts and completions, as TRL's SFTTrainer takes)."""


@dataclass(frozen=True)
class Suites:
    """`suites`'s options."""

    name: tyro.conf.Positional[str] = ""
    """The suite to show; all of them by default."""


@dataclass(frozen=True)
class Ask:
    """`ask`'s options."""

    agent: tyro.conf.Positional[str]
    """As of `lang-agent evaluate`."""
    prompt: tyro.conf.Positional[str]
    """What it reads."""
    actions: tuple[str, ...] = ()
    """The admissible phrases; free text by default."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    chat: bool | None = None
    """Whether the prompt is a message in the tokenizer's chat template; by default as the policy
    was trained, and for any other model where it has a template."""
    seed: Seed = 0
    """Of what is drawn."""
    remote: ChatConfig = field(default_factory=ChatConfig)
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Envs:
    """`envs`'s options."""

    search: tyro.conf.Positional[str] = ""
    """Only ids that contain this."""


@dataclass(frozen=True)
class ShowPrompt:
    """`prompt`'s options."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    """An id, or in quotes an id and arguments for the world: 'ID name=value ...'."""
    text: TextConfig = field(default_factory=TextConfig)
    seed: Seed = 0
    """Of the episode."""
    do: tuple[str, ...] = ()
    """Actions to take first."""
    model: str = "nano"
    """Whose tokenizer counts: a size (the one that a new model of this environment alone would
    get), a run or model folder, or a hub id."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Check:
    """`check`'s options."""

    what: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    """An environment's id, a prompt template (a name or a .jinja file), or a renderer (a name or
    module:function)."""
    on: str = "BabyAI-GoToLocal-v0"
    """The environment that a template or a renderer is tried in."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: Annotated[int, Range(1, 10_000)] = 20
    """Played at random, and as many by the expert where there is one."""
    model: str = "nano"
    """Whose tokens and context the prompts are measured by: a size, a run or model folder, or a hub
    id."""
    trust: bool = False
    """Import what the model's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class NewWorld:
    """`new-world`'s options."""

    name: tyro.conf.Positional[str]
    """Of the Python file, as in my_lake."""
    wraps: str | None = None
    """One of Gymnasium's environments that is to speak; by default a small world of its own."""


@dataclass(frozen=True)
class Bench:
    """`bench`'s options."""

    quick: bool = False
    """Shorter runs and fewer of them: about a minute on two cores of a new machine, several on an
    old or a busy one."""
    threads: Threads | None = None
    """Processor threads of torch; by default torch's own number."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    json: str | None = None
    """Also write the figures to this file."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Export:
    """`export`'s options."""

    run: tyro.conf.Positional[str]
    """A run or model folder, babyai (which ships), or a hub id."""
    out: tyro.conf.Positional[str]
    """The new folder."""
    evaluation: str | None = None
    """A folder of results of this policy (`lang-agent evaluate --out`), for the model card."""
    format: str = "transformers"
    """transformers, or onnx: an ONNX graph beside it (extra onnx)."""
    half: bool = False
    """Weights of 16 bits instead of 32: half the size."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""


@dataclass(frozen=True)
class Completion:
    """`completion`'s options."""

    shell: tyro.conf.Positional[str] = "bash"
    """bash, zsh or fish."""


def agent_of(args: Evaluate | Play | Demos | Ask, name: str, slots: int) -> Agent:
    """The agent called ``name``, acting as a command's options say."""
    from lang_agent.agents.few_shot import FewShotAgent, as_examples
    from lang_agent.cli.agents import named_agent
    from lang_agent.learn.demonstrations import read_demonstrations

    agent = named_agent(
        as_text(name),
        slots,
        args.decide,
        precision=args.precision,
        chat=args.chat,
        trust=args.trust,
        threads=args.threads,
        device=args.device,
        remote=None if isinstance(args, Demos) else args.remote,
    )
    if isinstance(args, Evaluate | Play) and args.examples:
        examples = read_demonstrations(Path(as_text(args.examples)))
        return FewShotAgent(agent, as_examples(examples))
    return agent
