"""From a command's arguments to its options: flags, `--config`, and a policy's own words."""

from __future__ import annotations

import io
import itertools
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import tyro

from lang_agent.cli.help import groups_of
from lang_agent.cli.options import Ask
from lang_agent.config import load_config
from lang_agent.errors import LangAgentError, unknown
from lang_agent.models.decide import DecideConfig
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.trust import Source, names_in

BOX = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│]|^\s*[|+]|[|+]\s*$", re.MULTILINE)
LONG = re.compile(r"(\S{80})\S{920,}")  # what is typed may be of any length, a sentence not
RULE = re.compile(r"[─—-]{4,}")


def take(arguments: list[str], flag: str) -> str | None:
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


def config_file(name: str) -> Path:
    """The file that ``--config`` names: on the disk, or else the recipe that ships by that name.

    Raises:
        LangAgentError: ``recipes/NAME.yaml`` is neither.
    """
    path = Path(name)
    if path.exists() or path.parent != Path("recipes"):
        return path
    recipe = Path(str(files("lang_agent.recipes"))) / path.name
    if not recipe.is_file():
        raise unknown("recipe", path.name, (file.name for file in recipe.parent.glob("*.yaml")))
    return recipe


def run_folder(config: TrainConfig, seed: str = "") -> str:
    """Where a run goes that is not told."""
    # Of module:Env-v0 the last part: a colon in a folder's name means something to other tools.
    env = "mixture" if config.mixture else re.split("[/:]", config.env)[-1]
    return f"runs/{env}{seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def take_several(arguments: list[str], flag: str) -> list[str] | None:
    """Remove ``--flag VALUE VALUE ...`` from the arguments and return the values."""
    if flag not in arguments:
        return None
    at = arguments.index(flag)
    values = [*itertools.takewhile(lambda one: not one.startswith("--"), arguments[at + 1 :])]
    if not values:
        raise LangAgentError(f"{flag} needs values.")
    del arguments[at : at + 1 + len(values)]
    return values


def take_switch(arguments: list[str], flag: str) -> bool:
    """Remove every ``--flag`` from the arguments and return whether there was one."""
    found = flag in arguments
    arguments[:] = [argument for argument in arguments if argument != flag]
    return found


def parse(kind: Any, arguments: Sequence[str], prog: str, default: Any) -> Any:
    """The options of a command, ``default`` where the arguments do not tell.

    Raises:
        LangAgentError: arguments that are none, or that the options refuse.
    """
    for argument in arguments:
        if argument.startswith("--tyro"):  # tyro's own, one of which writes to any file
            raise LangAgentError(f"Unrecognized option: {argument}.")
    shown = io.StringIO()
    try:
        with redirect_stderr(shown), _as_wide_as_it_comes():
            return tyro.cli(
                kind,
                args=list(arguments),
                prog=prog,
                add_help=False,
                config=(tyro.conf.OmitArgPrefixes,),
                **({} if default is None else {"default": default}),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        reason = LONG.sub(r"\1...", _reason(stop) or _told(_unboxed(shown.getvalue()), kind, prog))
    raise LangAgentError(f"{reason} See {prog} --help.")


PYTHONS = (
    (r"invalid literal for int\(\) with base 10: (.*)\.$", r"\1 is no whole number."),
    (r"could not convert string to float: (.*)\.$", r"\1 is no number."),
)
"""What Python says of words where numbers are wanted, and what a person is told."""


def _told(said: str, kind: Any, prog: str) -> str:
    """tyro's sentence, in the words of help."""
    if said.startswith("Missing from"):
        needed = [o.metavar for o in groups_of(kind)[""] if o.positional and o.required]
        return f"{prog} needs {' and '.join(needed)}."
    for python, plain in PYTHONS:
        said = re.sub(python, plain, said)
    return said


def _reason(error: BaseException) -> str | None:
    """The sentence of the :class:`LangAgentError` in whose place tyro stopped."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, LangAgentError):
            return str(seen)
        seen = seen.__context__
    return None


def _unboxed(shown: str) -> str:
    """The sentence in the first part of the box that tyro draws around an error."""
    _, *body = [BOX.sub("", line).strip() for line in shown.strip().splitlines()]
    if body and RULE.fullmatch(body[0]):  # in ASCII one stands below the title too
        del body[0]
    said = itertools.takewhile(lambda line: not RULE.fullmatch(line), body)
    text = " ".join(" ".join(said).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


@contextmanager
def _as_wide_as_it_comes() -> Iterator[None]:
    """Errors are not wrapped, so that a path in them can be copied."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


AGENTS = ("--agent", "--model")


def as_trained(kind: Any, arguments: Sequence[str], trust: bool) -> Any:
    """A command's defaults: for a trained policy, the words that it was trained in and its way to
    decide; for any other agent, to take the most likely phrase.

    What they name to import is the policy's word, unless it stands in the other arguments too.
    """
    names = {item.name for item in fields(kind)}
    if "policy" not in names and take(list(arguments), "--policy") is not None:
        raise LangAgentError("--policy is called --agent now, or --model where it writes.")
    if "film" in names and take(list(arguments), "--gif") is not None:
        raise LangAgentError("--gif is called --film now: it writes .gif and .mp4.")
    if not names & {"text", "decide"}:
        return None
    others = list(arguments)
    given = [take(others, flag) for flag in AGENTS]
    name = next((name for name in given if name is not None), None)
    default = kind
    if kind is Ask:  # its agent has no flag before it
        default = partial(Ask, tyro.MISSING, tyro.MISSING)
        name = next((argument for argument in others if not argument.startswith("-")), None)
    file = trained_config(name) if name else None
    if file is not None:
        trained = load_config(file, TrainConfig, trust=trust)
        known = {"text": _given(trained.text.carried(file), others), "decide": trained.decide}
        return replace(default(), **{name: known[name] for name in names & known.keys()})
    return replace(default(), decide=GREEDY) if "agent" in names and "decide" in names else None


GREEDY = DecideConfig(temperature=0)


def trained_config(name: str) -> Path | None:
    """The configuration of the agent called ``name``, where that is a policy that was trained."""
    from lang_agent.models.gpt2 import SIZES
    from lang_agent.models.store import config_beside

    return None if name in SIZES else config_beside(name)


def names_others(config: TrainConfig) -> bool:
    """Whether a run imports by name what a run folder's word alone does not."""
    text = config.text
    own = [*config.track, *config.metrics, *config.callback]
    own += [config.learn.algorithm, config.learn.optimizer]
    given = [config.env, *config.mixture, *config.vocabulary_from, *text.env_args, *own]
    names = names_in([*given, text.renderer or "", text.wording or ""])
    return not all(map(Source("").may_import, names))


def _given(text: TextConfig, arguments: Sequence[str]) -> TextConfig:
    """``text``, with the names that stand in ``arguments`` too free to be imported."""
    if text.source is None:
        return text
    return replace(text, source=replace(text.source, given=names_in(arguments)))
