"""What ``--help`` shows: a command's options by name, the common ones first.

The options are fields of dataclasses, told by their docstrings; :mod:`argparse` lays them out.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import tyro

from lang_agent.train.config import TrainConfig

FEW = 16  # options that are shown all together
HELP = ("-h", "--help", "--help-all")
COMMON = {
    "train": (
        "env", "mixture", "model", "steps", "algorithm", "learning_rate", "seed", "out",
        "eval_episodes", "gif", "track", "workers", "device",
    ),
    "imitate": (
        "env", "mixture", "model", "steps", "demonstrations", "learning_rate", "seed", "out",
        "eval_episodes", "gif", "track", "workers", "device",
    ),
}  # fmt: skip
"""Of a training command's options, those that ``--help`` shows."""
RARE = {"as_edited", "grid", "address"}
METAVARS = {
    "actions": "PHRASE", "address": "ADDRESS", "agent": "AGENT",
    "base_url": "URL", "callback": "FUNCTION",
    "decide": "WAY",
    "demonstrations": "FILE", "do": "PHRASE", "env": "ID", "env_args": "NAME=VALUE",
    "evaluation": "DIR", "examples": "FILE", "file": "FILE", "film": "FILE", "folder": "DIR",
    "folders": "DIR", "format": "FORMAT", "gif": "FILE", "invalid_action": "RULE", "json": "FILE",
    "markdown": "FILE", "metrics": "FUNCTION", "mixture": "PART", "on": "ID",
    "on_env_error": "RULE", "out": "DIR", "Report.out": "FILE", "Export.out": "OUT",
    "Demos.out": "FILE", "Convert.out": "OUT", "prompt": "TEMPLATE", "Ask.prompt": "TEXT",
    "prompt_folder": "DIR", "prompts": "TEXT", "record": "FILE", "reply_cache": "DIR", "run": "RUN",
    "search": "TEXT", "source": "SOURCE", "tasks": "TASK", "to": "FORMAT", "track": "TRACKER",
    "vocabulary_from": "ID", "what": "WHAT", "workers": "N", "wraps": "ID", "wording": "FUNCTION",
}  # fmt: skip
"""What an option's value is called, where that is neither a number nor the option's own name."""


@dataclass(frozen=True)
class Option:
    """One option as help and completion name it."""

    name: str
    metavar: str = ""
    """What its value is called; a switch has none."""
    help: str = ""
    default: str = ""
    several: bool = False
    positional: bool = False
    required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


CONFIG = Option("config", "FILE", "Read the options from a YAML file; flags win over it.")
OF_RUNS = (
    Option(
        "resume", "RUN",
        "Go on with a run folder from its last checkpoint; with --steps N to N steps in all, also "
        "where it was finished (--lr-final says what becomes of the rate).",
    ),
    Option(
        "seeds", "N",
        "Train from each of these seeds, side by side, and compare them.",
        several=True,
    ),
    Option(
        "grid", "NAME=VALUE,VALUE",
        "Train with each of these values of an option, side by side, from each of the seeds, and "
        "compare them; several options are combined.",
        several=True,
    ),
    Option(
        "address", "ADDRESS",
        "Train on a Ray cluster (extra ray): local starts Ray here, auto finds the one that this "
        "machine is a node of, HOST:PORT is its head node.",
    ),
    Option("as_edited", "", "Resume with a config.yaml that was changed since the run was saved."),
    Option(
        "trust", "",
        "Import what a run's or policy's configuration names, wherever it lies: a stranger's can "
        "run anything.",
    ),
)  # fmt: skip
"""What a training command takes beside its configuration."""


@cache
def groups_of(kind: Any) -> dict[str, tuple[Option, ...]]:
    """A command's options by the heading that they stand under; its own stand under none."""
    groups: dict[str, tuple[Option, ...]] = {}
    own = tuple(_options(kind))
    beside = (CONFIG, *OF_RUNS) if issubclass(kind, TrainConfig) else (CONFIG,)
    groups[""] = own + beside
    for item in fields(kind):
        inner = get_type_hints(kind)[item.name]
        if is_dataclass(inner):
            heading = str(inner.__doc__).splitlines()[0].rstrip(".")
            groups[heading[0].lower() + heading[1:]] = tuple(_options(inner))
    return groups


def help_text(kind: Any, name: str, about: str, default: Any = None, whole: bool = False) -> str:
    """The help of the command ``name``, ``whole`` or with its common options alone."""
    groups = dict(groups_of(kind))
    every = sum(map(len, groups.values()))
    if name in COMMON:
        groups = _sorted_by_use(groups, COMMON[name])
    if not whole and every > FEW:
        first = next(iter(groups))
        groups = {first: groups[first]}
    left = every - sum(map(len, groups.values()))
    positional = [option for option in groups_of(kind)[""] if option.positional]
    names = [_usage(option) for option in positional]
    parser = argparse.ArgumentParser(
        f"lang-agent {name}",
        usage=" ".join(["%(prog)s", *names, "[options]"]),
        description=about,
        epilog=f"--help-all shows {left} further options." if left else None,
        formatter_class=partial(_Formatter, max_help_position=26),
        add_help=False,
    )
    for heading, options in groups.items():
        where = parser.add_argument_group(heading or "options")
        if not heading and positional:
            arguments = parser.add_argument_group("arguments")
            parser._action_groups.remove(arguments)
            parser._action_groups.insert(-1, arguments)
        for option in options:
            _add(arguments if option.positional else where, option, default)
        if heading in ("", "common options"):
            where.add_argument("-h", "--help", action="store_true", help="Show this and exit.")
    return parser.format_help().rstrip()


class _Formatter(argparse.HelpFormatter):
    """argparse's, which would break names at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _usage(option: Option) -> str:
    """A positional argument as the first line of help has it."""
    name = option.metavar
    if option.several:
        return f"{name} [{name} ...]" if option.required else f"[{name} ...]"
    return name if option.required else f"[{name}]"


def _sorted_by_use(
    groups: dict[str, tuple[Option, ...]], names: Sequence[str]
) -> dict[str, tuple[Option, ...]]:
    """A training run's options, the common ones of all groups first."""
    known = {option.name: option for options in groups.values() for option in options}
    beside = [CONFIG.name, *(option.name for option in OF_RUNS if option.name not in RARE)]
    common = [name for name in (*names, *beside) if name in known]
    rest = {
        heading or "further options of the run": tuple(o for o in options if o.name not in common)
        for heading, options in groups.items()
    }
    return {"common options": tuple(known[name] for name in common), **rest}


def _add(where: Any, option: Option, default: Any) -> None:
    """Put an option on the page, with its default where it has one that says something."""
    value = _value(default, option.name) if default is not None else option.default
    text = option.help + (f" (default: {value})" if value else "")
    several: dict[str, Any] = {"nargs": "*"} if option.several else {}
    text = text.strip().replace("%", "%%")
    if option.positional:
        where.add_argument(option.name, metavar=option.metavar, help=text, **several)
    elif option.metavar:
        where.add_argument(option.flag, metavar=option.metavar, help=text, **several)
    else:
        where.add_argument(option.flag, action="store_true", help=text)


def _options(kind: Any) -> Iterator[Option]:
    """The options of a dataclass, those of the dataclasses in it aside."""
    hints, told = get_type_hints(kind, include_extras=True), _docstrings(kind)
    for item in fields(kind):
        marks = getattr(hints[item.name], "__metadata__", ())
        wanted = get_type_hints(kind)[item.name]
        if is_dataclass(wanted) or tyro.conf.Suppress in marks:
            continue
        default = item.default if item.default is not MISSING else ""
        yield Option(
            item.name,
            _metavar(kind, item.name, wanted),
            told.get(item.name, ""),
            _shown(default),
            several=get_origin(wanted) is tuple,
            positional=tyro.conf.Positional in marks,
            required=item.default is MISSING and item.default_factory is MISSING,
        )


def _metavar(kind: Any, name: str, wanted: Any) -> str:
    kinds = set(get_args(wanted)) - {NoneType} if NoneType in get_args(wanted) else {wanted}
    if kinds == {bool}:
        return "True|False" if wanted is not bool else ""
    if kinds & {int, float}:
        return "N" if int in kinds else "X"
    own = METAVARS.get(name, name.upper())
    return METAVARS.get(f"{kind.__name__}.{name}", own)


def _value(default: Any, name: str) -> str:
    """What ``default``, a configuration, has for the option ``name``, in it or in a part of it."""
    parts = [getattr(default, item.name) for item in fields(default)]
    for part in (*filter(is_dataclass, parts), default):  # `decide` is a part, and in it a setting
        if name in {item.name for item in fields(part)}:
            return _shown(getattr(part, name))
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None or value is False else str(value)


def _docstrings(kind: Any) -> dict[str, str]:
    """The text below each field of a dataclass, as one paragraph."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    body: Sequence[ast.stmt] = definition.body  # type: ignore[attr-defined]
    found = {}
    for field, below in itertools.pairwise(body):
        text = below.value.value if _is_text(below) else None  # type: ignore[attr-defined]
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and text:
            found[field.target.id] = " ".join(text.split())
    return found


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
