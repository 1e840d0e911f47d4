"""The command line: ``lang-agent train | demos | imitate | evaluate | play | ...``.

Every option can come from a YAML file (``--config``); flags win over the file.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console

from lang_agent.cli_imitation import IMITATE, Demos, demos
from lang_agent.cli_options import Bench, Envs, Evaluate, Export, Play, ShowPrompt
from lang_agent.cli_text import Generate, Pretrain, generate, pretrain
from lang_agent.config import DecideConfig, TrainConfig, load_config
from lang_agent.errors import LangAgentError
from lang_agent.files import TellWarning, try_place, write_whole

if TYPE_CHECKING:
    from lang_agent.trainer import Trainer

console = Console(highlight=False)


def train(config: TrainConfig, resume: Path | None = None, **going_on: Any) -> None:
    """Train a policy from the environment's reward."""
    from lang_agent import trainer

    if resume is not None:
        run = trainer.resume(resume, **going_on)
        console.print(f"Going on from {run.progress.steps} steps in {resume}")
    else:
        # Of module:Env-v0 the last part: a colon in a folder's name means something to other tools.
        env = "mixture" if config.mixture else re.split("[/:]", config.env)[-1]
        name = f"{env}-{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        run = trainer.start(config, Path(config.out or f"runs/{name}"))
    with run.lock:
        _train(run)


def _train(run: Trainer) -> None:
    from lang_agent import progress
    from lang_agent.evaluation import EVALUATION_SEED
    from lang_agent.report import check_drawn, film, plot_learning
    from lang_agent.run_folder import read_evaluations

    if run.config.gif:
        check_drawn(run.make_env(render_mode="rgb_array"))
    evaluated = "before" in read_evaluations(run.folder)
    if run.config.eval_episodes and not run.progress.updates and not evaluated:
        before = progress.evaluation(run, console, "Before training")
        progress.write_evaluation(run.folder, "before", before)
    with _stopped_by_signals(run):
        progress.training(run, console)
    if run.stop:
        console.print("Stopped and saved. Go on with:")
        console.print(f"lang-agent train --resume {run.folder}", soft_wrap=True)
        raise SystemExit(130)
    if run.config.eval_episodes:
        after = progress.evaluation(run, console, "After training")
        progress.write_evaluation(run.folder, "after", after)
    plot_learning([run.folder], run.folder / "learning_curve.png", title=run.config.env)
    if run.config.gif:
        env = run.make_env(render_mode="rgb_array")
        film(run.agent(1), env, EVALUATION_SEED, run.folder / "episode.gif")
    console.print("\nThe run folder holds the model, metrics, learning curve and configuration:")
    console.print(str(run.folder), style="bold", soft_wrap=True)


@contextmanager
def _stopped_by_signals(run: Trainer) -> Iterator[None]:
    """Ctrl-C (or a cluster's SIGTERM) ends the run after its update; a second one at once."""

    def stop(number: int, frame: object) -> None:
        if run.stop:
            raise KeyboardInterrupt
        run.stop = True
        console.print("Stopping after this update; once more to stop at once, unsaved.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def evaluate(args: Evaluate) -> None:
    """How often an agent succeeds on held-out seeds, with 95% intervals."""
    from lang_agent import evaluation

    if args.json:
        try_place(Path(args.json))
    rows: list[evaluation.Evaluation] = []
    failed = None
    try:
        for env_id in args.envs:
            envs = [args.text.make(env_id) for _ in range(min(args.slots, args.episodes))]
            agent = make_agent(
                args.policy, len(envs), args.seed, args.decide, args.precision, args.chat
            )
            rows += evaluation.evaluate(
                agent, envs, args.episodes, name=env_id, on_env_error=args.on_env_error
            )
    except evaluation.EvaluationError as error:
        rows, failed = rows + error.rows, error
    if rows:
        console.print(evaluation.as_table(rows, title=args.policy))
    if args.json and rows:
        record = {"policy": args.policy, "decide": asdict(args.decide), "seed": args.seed}
        data = {**record, "evaluations": evaluation.as_json(rows)}
        if failed is not None:
            data["error"] = str(failed)
        write_whole(Path(args.json), json.dumps(data, indent=1) + "\n")
    if failed is not None:
        raise failed


def play(args: Play) -> None:
    """Play in words, or watch an agent play."""
    from lang_agent.terminal import watch

    if args.gif:
        from lang_agent.report import film

        try_place(Path(args.gif))
        env = args.text.make(args.env, render_mode="rgb_array")
        agent = make_agent(args.agent, 1, args.seed, args.decide, args.precision, args.chat)
        episode = film(agent, env, args.seed, Path(args.gif))
        console.print(f"{args.gif}: {len(episode.steps)} steps, success {episode.success}")
        return
    agent = None
    if args.agent != "human":
        agent = make_agent(args.agent, 1, args.seed, args.decide, args.precision, args.chat)
    env, seeds = args.text.make(args.env), range(args.seed, args.seed + args.episodes)
    if args.record:
        from lang_agent.demonstrations import refuse_evaluation_seeds

        refuse_evaluation_seeds(seeds)
        try_place(Path(args.record))
    for episode in watch(env, agent, seeds, console):
        if args.record:
            from lang_agent.demonstrations import label_own, write_demonstrations

            write_demonstrations(Path(args.record), args.env, [label_own(episode)])


def envs(args: Envs) -> None:
    """What can be made, by world."""
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
    """Show what an agent would read, with its token count."""
    from lang_agent.checkpoint import load_policy
    from lang_agent.models import SIZES
    from lang_agent.policy import LanguagePolicy
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


def bench(args: Bench) -> None:
    """How fast the policy acts and learns, against straightforward loops."""
    import torch

    from lang_agent import bench

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.json:
        try_place(Path(args.json))
    record = bench.bench(args.quick, lambda line: console.print(line, markup=False))
    if args.json:
        write_whole(Path(args.json), json.dumps(record, indent=1) + "\n")


def export(args: Export) -> None:
    """Copy a run's model and its words into a folder of their own."""
    from lang_agent.checkpoint import load_policy, write_sealed
    from lang_agent.config import save_config
    from lang_agent.run_folder import CONFIG_FILE

    folder = Path(args.out)
    if folder.exists() or folder.is_symlink():
        raise LangAgentError(f"'{folder}' is there already: choose another folder.")
    config = load_config(Path(args.run) / CONFIG_FILE, TrainConfig)
    policy = load_policy(args.run)

    def write(beside: Path) -> None:
        policy.save_pretrained(beside, half=args.half)
        save_config(config, beside / CONFIG_FILE)

    write_sealed(folder, write)
    size = sum(file.stat().st_size for file in folder.iterdir())
    console.print(f"{folder}: {size / 2**20:.1f} MiB", soft_wrap=True)


def make_agent(
    name: str,
    slots: int,
    seed: int,
    decide: DecideConfig,
    precision: str,
    chat: bool | None = None,
) -> Any:
    """The agent called ``name``: random, bot, constant:<action>, or a policy's folder or id."""
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

    policy = load_policy(name, chat=chat)
    policy.set_precision(precision)
    generator = torch.Generator().manual_seed(seed)
    return PolicyAgent(policy, slots, decide, generator=generator)


def imitate(config: TrainConfig, resume: Path | None = None) -> None:
    """Learn to do as the bot, or a file of demonstrations, does."""
    if config.learn.algorithm != "imitation":
        raise LangAgentError(f"imitate learns by imitation, not {config.learn.algorithm}: train.")
    train(config, resume)


COMMANDS: dict[str, tuple[Any, Callable[..., None]]] = {
    "train": (TrainConfig, train),
    "demos": (Demos, demos),
    "imitate": (TrainConfig, imitate),
    "evaluate": (Evaluate, evaluate),
    "play": (Play, play),
    "envs": (Envs, envs),
    "prompt": (ShowPrompt, prompt),
    "generate": (Generate, generate),
    "pretrain": (Pretrain, pretrain),
    "export": (Export, export),
    "bench": (Bench, bench),
}


def _usage() -> str:
    lines = ["usage: lang-agent <command> [options]", "", "commands:"]
    for name, (_, run) in COMMANDS.items():
        lines.append(f"  {name:<10}{run.__doc__}")
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
    resume = _take(rest, "--resume") if kind is TrainConfig else None
    if resume is not None:
        on_env_error, as_edited = _take(rest, "--on-env-error"), "--as-edited" in rest
        if rest != ["--as-edited"] * as_edited:
            raise LangAgentError(
                "--resume goes on as configured: it takes no other options than --as-edited "
                "(where config.yaml was changed) and --on-env-error."
            )
        train(TrainConfig(), Path(resume), on_env_error=on_env_error, as_edited=as_edited)
        return
    file = _take(rest, "--config")
    if file is not None:
        default = load_config(file, kind)
    else:
        default = IMITATE if name == "imitate" else _as_trained(kind, rest)
    about = f"{command.__doc__} --config FILE reads these options from YAML; flags win."
    if kind is TrainConfig:
        about += " --resume RUN goes on from the last checkpoint of a run folder."
    command(
        tyro.cli(
            kind,
            args=rest,
            prog=f"lang-agent {name}",
            description=about,
            config=(tyro.conf.OmitArgPrefixes,),
            **({} if default is None else {"default": default}),
        )
    )


def _as_trained(kind: Any, arguments: Sequence[str]) -> Any:
    """A command's defaults: for a trained policy, the words that it was trained in."""
    for flag in ("--policy", "--agent", "--model"):
        name = _take(list(arguments), flag)
        if name is None:
            continue
        from lang_agent.models import SIZES, shipped

        file = Path(shipped(name)) / "config.yaml"
        if file.is_file() and not (flag == "--model" and name in SIZES):
            trained = load_config(file, TrainConfig)
            known = {"text": trained.text, "decide": trained.decide}
            names = {item.name for item in fields(kind)}
            told = {name: value for name, value in known.items() if name in names}
            return replace(kind(), **told) if told else None
    return None


def main() -> None:
    """The entry point: a mistake is one sentence on standard error and exit status 2."""
    show = warnings.showwarning

    def sentence(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if category is TellWarning:
            Console(stderr=True, highlight=False).print(f"lang-agent: {message}", markup=False)
        else:
            show(message, category, *rest)

    warnings.showwarning = sentence  # type: ignore[assignment]
    try:
        run(sys.argv[1:])
    except LangAgentError as error:
        Console(stderr=True, highlight=False).print(f"lang-agent: {error}", markup=False)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read the output has stopped, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is yet unwritten
        raise SystemExit(141) from None


if __name__ == "__main__":
    main()
