"""The command line: ``lang-agent train | demos | imitate | evaluate | play | ...``.

Every option can come from a YAML file (``--config``); flags win over the file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lang_agent.cli.console import complain, say, set_up_streams
from lang_agent.cli.guard import guarded, show_bug
from lang_agent.cli.help import HELP, help_text
from lang_agent.cli.imitation import IMITATE, Demos, demos
from lang_agent.cli.options import (
    Ask,
    Bench,
    Check,
    Compare,
    Completion,
    Convert,
    Envs,
    Evaluate,
    Export,
    NewWorld,
    Play,
    Replay,
    Report,
    ShowPrompt,
    Suites,
)
from lang_agent.cli.parse import (
    as_trained,
    config_file,
    parse,
    take,
    take_several,
    take_switch,
)
from lang_agent.cli.text import Generate, Pretrain, as_text, generate, pretrain
from lang_agent.config import load_config
from lang_agent.errors import LangAgentError, unknown, user_code
from lang_agent.files import try_place, write_whole
from lang_agent.train.config import TrainConfig


def train(
    config: TrainConfig,
    resume: Path | None = None,
    *,
    address: str | None = None,
    trust: bool = False,
    **going_on: Any,
) -> None:
    """Train a policy from the environment's reward."""
    if address is not None:
        from lang_agent.cli import ray_training

        ray_training.train(config, address, resume, trust=trust, **going_on)
        return
    from lang_agent.cli import training

    training.carry_out(training.begin(config, resume, trust=trust, **going_on))


def evaluate(args: Evaluate) -> None:
    """How often an agent succeeds on held-out seeds, with 95% intervals; every episode is kept."""
    from lang_agent.cli import evaluation

    evaluation.evaluate(args)


def compare(args: Compare) -> None:
    """Which of several agents is better, on the same tasks and seeds."""
    from lang_agent.cli import comparison

    comparison.compare(args)


def report(args: Report) -> None:
    """One page to look at: results, curves, and every episode step by step."""
    from lang_agent.cli import reporting

    reporting.report(args)


def replay(args: Replay) -> None:
    """Play an evaluation's stored actions again, and check prompts and rewards."""
    from lang_agent.cli import evaluation

    evaluation.replay(args)


def convert(args: Convert) -> None:
    """Write demonstrations or results in another format."""
    from lang_agent.cli import convert

    convert.convert(args)


def suites(args: Suites) -> None:
    """The suites of tasks that there are, or the tasks of one."""
    from lang_agent.cli import evaluation

    evaluation.suites(args)


def ask(args: Ask) -> None:
    """What an agent would say to one prompt."""
    from lang_agent.cli import evaluation

    evaluation.ask(args)


def play(args: Play) -> None:
    """Play in words, or watch an agent play."""
    from lang_agent.cli.play import command

    command.play(args)


def envs(args: Envs) -> None:
    """What can be made, by world."""
    from lang_agent.text_env.registry import text_env_ids

    groups: dict[str, list[str]] = {}
    for env_id in text_env_ids():
        if args.search.lower() in env_id.lower():
            groups.setdefault(env_id.split("-")[0], []).append(env_id)
    if not groups:
        raise LangAgentError(f"No environment has {args.search!r} in its id.")
    for world, ids in groups.items():
        say((world, "bold"), f" ({len(ids)})")
        for env_id in ids:
            say(f"  {env_id}")


def prompt(args: ShowPrompt) -> None:
    """Show what an agent would read, with its token count."""
    from lang_agent.language_env import language_env
    from lang_agent.models.gpt2 import SIZES
    from lang_agent.models.policy import LanguagePolicy
    from lang_agent.models.store import load_policy
    from lang_agent.stepping import env_error
    from lang_agent.train.vocabulary import sample_texts

    env = args.text.make(args.env)
    if args.model in SIZES:
        texts = sample_texts([args.text.make(args.env)], seconds=10)
        policy = LanguagePolicy.from_scratch(args.model, seed=0, texts=texts)
    else:
        policy = load_policy(args.model, trust=args.trust)
    step, action = None, ""
    try:
        text, _ = env.reset(seed=args.seed)
        for step, action in enumerate(map(as_text, args.do)):  # noqa: B007
            text, *_ = env.step(action)
    except (Exception, SystemExit) as error:
        raise env_error(env, args.seed, 0, step, action, error) from error
    say(text)
    count = len(policy.encode_prompt(text))
    made = " (a tokenizer made for this environment alone)" if args.model in SIZES else ""
    say((f"{count} tokens of {args.model}{made}, {len(text)} characters", "dim"))
    if legend := language_env(env).legend:
        say((legend, "dim"))


def check(args: Check) -> None:
    """Whether an environment, a template or a renderer is fit to learn in."""
    from lang_agent.cli import checking

    checking.check(args)


def new_world(args: NewWorld) -> None:
    """Write a world to begin with, and its test, into the current folder."""
    from lang_agent.cli import new_world

    new_world.new_world(args)


def bench(args: Bench) -> None:
    """How fast the policy acts and learns, against straightforward loops."""
    import torch

    from lang_agent.cli import bench

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.json:
        try_place(Path(args.json))
    record = bench.bench(args.quick, say, args.device)
    if args.json:
        write_whole(Path(args.json), json.dumps(record, indent=1) + "\n")


def export(args: Export) -> None:
    """Write a policy as a plain model of transformers, with a model card."""
    from lang_agent.cli import exporting

    exporting.export(args)


def completion(args: Completion) -> None:
    """Print a script that completes commands, flags and values in a shell."""
    from lang_agent.cli.completion import AGENTS, POLICIES, SIZES, script
    from lang_agent.text_env.registry import text_env_ids

    ids = list(text_env_ids())
    words = {"ID": ids, "TASK": ids, "AGENT": [*AGENTS, *POLICIES], "MODEL": [*SIZES, *POLICIES]}
    say(script(args.shell, {name: kind for name, (kind, _) in COMMANDS.items()}, words).rstrip())


def imitate(config: TrainConfig, *, address: str | None = None, trust: bool = False) -> None:
    """Learn to do as the bot, or a file of demonstrations, does."""
    if config.learn.algorithm != "imitation":
        raise LangAgentError(f"imitate learns by imitation, not {config.learn.algorithm}: train.")
    train(config, address=address, trust=trust)


COMMANDS: dict[str, tuple[Any, Callable[..., None]]] = {
    "train": (TrainConfig, train),
    "demos": (Demos, demos),
    "imitate": (TrainConfig, imitate),
    "evaluate": (Evaluate, evaluate),
    "compare": (Compare, compare),
    "report": (Report, report),
    "replay": (Replay, replay),
    "convert": (Convert, convert),
    "suites": (Suites, suites),
    "play": (Play, play),
    "ask": (Ask, ask),
    "envs": (Envs, envs),
    "prompt": (ShowPrompt, prompt),
    "check": (Check, check),
    "new-world": (NewWorld, new_world),
    "generate": (Generate, generate),
    "pretrain": (Pretrain, pretrain),
    "export": (Export, export),
    "bench": (Bench, bench),
    "completion": (Completion, completion),
}


BELOW: Any = {"subsequent_indent": 14 * " ", "break_long_words": False}


def _usage() -> str:
    lines = ["usage: lang-agent <command> [options]", "", "commands:"]
    for name, (_, run) in COMMANDS.items():
        line = f"  {name:<12}{str(run.__doc__).splitlines()[0]}"
        lines.append(textwrap.fill(line, shutil.get_terminal_size().columns, **BELOW))
    return "\n".join([*lines, "", "`lang-agent <command> --help` tells a command's options."])


def run(arguments: Sequence[str]) -> None:
    """Run one command.

    Raises:
        LangAgentError: what cannot be done.
        KeyboardInterrupt: a run that was stopped, after it was saved.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_usage())
        return
    name, rest = arguments[0], list(arguments[1:])
    if name == "--version":
        from lang_agent import __version__

        say(__version__)
        return
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    kind, command = COMMANDS[name]
    if wanted := [argument for argument in rest if argument in HELP]:
        default = IMITATE if name == "imitate" else None
        about = str(command.__doc__).splitlines()[0]
        say(help_text(kind, name, about, default, "--help-all" in wanted))
        return
    trains = kind is TrainConfig
    resume = take(rest, "--resume") if trains else None
    trust = take_switch(rest, "--trust") if trains else "--trust" in rest
    address = take(rest, "--address") if trains else None
    if resume is not None:
        going_on: dict[str, Any] = {
            "steps": _whole(take(rest, "--steps"), "steps"),
            "on_env_error": take(rest, "--on-env-error"),
            "as_edited": take_switch(rest, "--as-edited"),
        }
        if rest:
            raise LangAgentError(
                "--resume goes on as configured: it takes no other options than --steps (to train "
                "to that many in all), --as-edited (where config.yaml was changed), "
                "--on-env-error, --address and --trust."
            )
        run = partial(train, TrainConfig(), Path(resume), address=address, trust=trust)
        guarded(partial(run, **going_on))
        return
    seeds = take_several(rest, "--seeds") if trains else None
    grid = take_several(rest, "--grid") if trains else None
    file = take(rest, "--config")
    if file is not None:  # the person's own word
        default = load_config(config_file(file), kind, trust=True)
    else:
        default = IMITATE if name == "imitate" else as_trained(kind, rest, trust)
    read = partial(parse, kind, prog=f"lang-agent {name}", default=default)
    if seeds is not None or grid is not None:
        from lang_agent.cli.seeds import plan, settings, train_all

        configs = {setting: read([*rest, *more]) for setting, more in settings(grid or ())}
        train_all(plan(configs, _seeds(seeds)), address, trust=trust)
        return
    options = read(rest)
    beside: dict[str, Any] = {"address": address, "trust": trust} if trains else {}
    guarded(lambda: command(options, **beside))


def _whole(given: str | None, name: str, flag: str | None = None) -> int | None:
    """A number that is given for the setting ``name`` of a run."""
    if given is None:
        return None
    try:
        number = int(given) if given.isascii() else None
    except ValueError:
        number = None
    if number is None:
        raise LangAgentError(f"--{flag or name}: {given!r} is not a whole number.")
    setting: dict[str, Any] = {name: number}
    return getattr(replace(TrainConfig(), **setting), name)


def _seeds(given: Sequence[str] | None) -> list[int] | None:
    """The seeds of several runs."""
    if given is None:
        return None
    seeds = [seed for one in given if (seed := _whole(one, "seed", "seeds")) is not None]
    if len({*seeds}) < len(seeds):
        raise LangAgentError(f"--seeds {' '.join(given)}: a seed stands there twice.")
    return seeds


def main() -> None:
    """The entry point: a mistake is one sentence on standard error and exit status 2."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the person's own worlds and rewards, behind all else
    # Threads that wait give their processor away, or they would keep it from those they wait for on
    # a busy machine. OpenMP reads this when torch is imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    set_up_streams()
    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except LangAgentError as error:
        show_bug(error)
        complain(error)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # whoever read the output has stopped, as `| head` does
        _say_no_more()
        raise SystemExit(141) from None
    except OSError as error:
        if user_code(error):
            raise
        complain(f"{error.strerror or error}{f': {error.filename!r}' if error.filename else ''}.")
        _say_no_more()  # the output itself may be what cannot be written
        raise SystemExit(2) from None


def _say_no_more() -> None:
    """Let what is yet unwritten go nowhere, where it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
