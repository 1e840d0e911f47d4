"""The command line: ``lang-agent train | evaluate | play | envs | prompt``.

Every option of ``train`` can come from a YAML file (``--config``); flags win over the file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from lang_agent.config import TextConfig, TrainConfig, load_config
from lang_agent.errors import LangAgentError

console = Console(highlight=False)


@dataclass(frozen=True)
class Evaluate:
    """How often an agent succeeds, on held-out seeds, with Wilson 95% intervals."""

    envs: tyro.conf.Positional[tuple[str, ...]] = ("BabyAI-GoToLocal-v0",)
    """Gymnasium ids; each is a row of the table."""
    policy: str = "random"
    """random, bot, constant:<action>, a run or model folder, or a hub id."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: int = 200
    slots: int = 16
    """Episodes played at once."""
    temperature: float = 1.0
    """Of the draw among the phrases; 0 takes the most likely one."""
    seed: int = 0
    """Of the draws; the episodes' own seeds are always the same ones."""
    json: str | None = None
    """Also write the figures to this file."""


@dataclass(frozen=True)
class Play:
    """Play in words, or watch an agent play."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    agent: str = "human"
    """human, random, bot, constant:<action>, a run or model folder, or a hub id."""
    text: TextConfig = field(default_factory=TextConfig)
    episodes: int = 1
    temperature: float = 1.0
    seed: int = 0
    gif: str | None = None
    """Write the episode as a GIF instead of playing in the terminal."""


@dataclass(frozen=True)
class Envs:
    """What can be made, by world."""

    search: tyro.conf.Positional[str] = ""
    """Only ids that contain this."""


@dataclass(frozen=True)
class ShowPrompt:
    """Show what an agent would read, with its token count."""

    env: tyro.conf.Positional[str] = "BabyAI-GoToLocal-v0"
    text: TextConfig = field(default_factory=TextConfig)
    seed: int = 0
    do: tuple[str, ...] = ()
    """Actions to take first."""
    model: str = "nano"
    """Whose tokenizer counts: a size, a run or model folder, or a hub id."""


def train(config: TrainConfig, resume: Path | None) -> None:
    """Train a policy from the environment's reward."""
    from lang_agent import progress, trainer
    from lang_agent.evaluation import EVALUATION_SEED
    from lang_agent.report import film, plot_learning

    if resume is not None:
        run = trainer.resume(resume)
        console.print(f"Going on from {run.progress.steps} steps in {resume}")
    else:
        name = f"{config.env.split('/')[-1]}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        run = trainer.start(config, Path(config.out or f"runs/{name}"))
    results = {}
    if run.config.eval_episodes and resume is None:
        results["before"] = progress.evaluation(run, console, "Before training")
    try:
        progress.training(run, console)
    except KeyboardInterrupt:
        console.print(f"\nStopped. Go on with: lang-agent train --resume {run.folder}")
        raise SystemExit(130) from None
    if run.config.eval_episodes:
        results["after"] = progress.evaluation(run, console, "After training")
    progress.write_evaluations(run.folder, results)
    plot_learning([run.folder], run.folder / "learning_curve.png", title=run.config.env)
    if run.config.gif:
        env = run.config.text.make(run.config.env, render_mode="rgb_array")
        film(run.agent(1), env, EVALUATION_SEED, run.folder / "episode.gif")
    console.print("\nThe run folder holds the model, metrics, learning curve and configuration:")
    console.print(str(run.folder), style="bold", soft_wrap=True)


def evaluate(args: Evaluate) -> None:
    from lang_agent import evaluation

    rows = []
    for env_id in args.envs:
        envs = [args.text.make(env_id) for _ in range(min(args.slots, args.episodes))]
        agent = _agent(args.policy, len(envs), args.temperature, args.seed)
        rows += evaluation.evaluate(agent, envs, args.episodes, name=env_id)
    console.print(evaluation.as_table(rows, title=args.policy))
    if args.json:
        record = {"policy": args.policy, "temperature": args.temperature, "seed": args.seed}
        data = {**record, "evaluations": evaluation.as_json(rows)}
        Path(args.json).write_text(json.dumps(data, indent=1) + "\n")


def play(args: Play) -> None:
    from lang_agent.terminal import watch

    if args.gif:
        from lang_agent.report import film

        env = args.text.make(args.env, render_mode="rgb_array")
        agent = _agent(args.agent, 1, args.temperature, args.seed)
        episode = film(agent, env, args.seed, Path(args.gif))
        console.print(f"{args.gif}: {len(episode.steps)} steps, success {episode.success}")
        return
    agent = None if args.agent == "human" else _agent(args.agent, 1, args.temperature, args.seed)
    watch(args.text.make(args.env), agent, range(args.seed, args.seed + args.episodes), console)


def envs(args: Envs) -> None:
    from lang_agent.worlds import text_env_ids

    groups: dict[str, list[str]] = {}
    for env_id in text_env_ids():
        if args.search.lower() in env_id.lower():
            groups.setdefault(env_id.split("-")[0], []).append(env_id)
    if not groups:
        raise LangAgentError(f"No environment has {args.search!r} in its id.")
    for world, ids in groups.items():
        console.print(f"[bold]{world}[/bold] ({len(ids)})")
        for env_id in ids:
            console.print(f"  {env_id}")


def prompt(args: ShowPrompt) -> None:
    from lang_agent.checkpoint import load_policy
    from lang_agent.policy import SIZES, LanguagePolicy
    from lang_agent.tokenizer import sample_texts

    env = args.text.make(args.env)
    if args.model in SIZES:
        texts = sample_texts([args.text.make(args.env)])
        policy = LanguagePolicy.from_scratch(args.model, seed=0, texts=texts)
    else:
        policy = load_policy(args.model)
    text, _ = env.reset(seed=args.seed)
    for action in args.do:
        text, *_ = env.step(action)
    console.print(text, markup=False, soft_wrap=True)
    count = len(policy.encode_prompt(text))
    console.print(f"[dim]{count} tokens of {args.model}, {len(text)} characters[/dim]")


def _agent(name: str, slots: int, temperature: float, seed: int) -> Any:
    from lang_agent.agents import BotAgent, ConstantAgent, RandomAgent

    kind, _, value = name.partition(":")
    if name == "random":
        return RandomAgent(seed)
    if name == "bot":
        return BotAgent()
    if kind == "constant":
        if not value:
            raise LangAgentError("The constant agent needs its action: constant:<action>.")
        return ConstantAgent(value)
    import torch

    from lang_agent.agents import PolicyAgent
    from lang_agent.checkpoint import load_policy

    generator = torch.Generator().manual_seed(seed)
    return PolicyAgent(load_policy(name), slots, temperature=temperature, generator=generator)


COMMANDS: dict[str, tuple[Any, Callable[..., None]]] = {
    "train": (TrainConfig, train),
    "evaluate": (Evaluate, evaluate),
    "play": (Play, play),
    "envs": (Envs, envs),
    "prompt": (ShowPrompt, prompt),
}


def _usage() -> str:
    lines = ["usage: lang-agent <command> [options]", "", "commands:"]
    for name, (kind, run) in COMMANDS.items():
        summary = (run.__doc__ or kind.__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:<10}{summary}")
    return "\n".join([*lines, "", "`lang-agent <command> --help` tells a command's options."])


def _take(arguments: list[str], flag: str) -> str | None:
    """Remove ``--flag VALUE`` or ``--flag=VALUE`` from the arguments and return the value."""
    for at, argument in enumerate(arguments):
        if argument.startswith(f"{flag}="):
            del arguments[at]
            return argument.partition("=")[2]
        if argument == flag:
            if at + 1 == len(arguments):
                raise LangAgentError(f"{flag} needs a value.")
            value = arguments[at + 1]
            del arguments[at : at + 2]
            return value
    return None


def run(arguments: Sequence[str]) -> None:
    """Run one command; raises :class:`LangAgentError` for what cannot be done."""
    if not arguments or arguments[0] in ("-h", "--help"):
        console.print(_usage(), markup=False)
        return
    name, rest = arguments[0], list(arguments[1:])
    if name == "--version":
        from lang_agent import __version__

        console.print(__version__)
        return
    if name not in COMMANDS:
        raise LangAgentError(f"Unknown command {name!r}. Choices: {', '.join(COMMANDS)}.")
    kind, command = COMMANDS[name]
    if kind is not TrainConfig:
        command(_parse(kind, rest, name, kind.__doc__, _as_trained(kind, rest)))
        return
    resume, file = _take(rest, "--resume"), _take(rest, "--config")
    if resume is not None:
        if rest or file:
            raise LangAgentError("--resume goes on as configured: it takes no other options.")
        train(TrainConfig(), Path(resume))
        return
    default = TrainConfig() if file is None else load_config(file, TrainConfig)
    about = (
        f"{train.__doc__} --config FILE reads these options from YAML (flags win), "
        "--resume RUN goes on from the last checkpoint of a run folder."
    )
    train(_parse(TrainConfig, rest, name, about, default), None)


def _as_trained(kind: Any, arguments: Sequence[str]) -> Any:
    """A command's defaults: for a run folder, the words that it was trained in."""
    for flag in ("--policy", "--agent", "--model"):
        folder = _take(list(arguments), flag)
        file = Path(folder or "") / "config.yaml"
        if folder and file.is_file():
            trained = load_config(file, TrainConfig)
            return replace(kind(), text=trained.text)
    return None


def _parse(kind: Any, arguments: Sequence[str], name: str, about: str, default: Any = None) -> Any:
    given = {} if default is None else {"default": default}
    return tyro.cli(
        kind,
        args=arguments,
        prog=f"lang-agent {name}",
        description=about,
        config=(tyro.conf.OmitArgPrefixes,),
        **given,
    )


def main() -> None:
    """The entry point: a mistake is one sentence on standard error and exit status 2."""
    try:
        run(sys.argv[1:])
    except LangAgentError as error:
        Console(stderr=True, highlight=False).print(f"lang-agent: {error}", markup=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
