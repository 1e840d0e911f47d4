"""What is evaluated: tasks, alone or gathered in a suite, and the panel of tasks and seeds.

A suite is a TOML file::

    about = "what it is for, and where its figures come from"
    [published]                      # figures to stand beside ours, as shares of 1
    "a system (source)" = 0.31

    [[task]]
    name = "goto"                    # in tables and records
    env = "BabyAI-MixedLocal-v0"
    arguments = { task = "goto", num_dists = 0 }
    published = { "a system (source)" = 0.42 }

Or one of other suites, whose tasks it has in families (of "balrog-babyai" in "balrog" the family is
"babyai")::

    about = "..."
    include = ["balrog-babyai", "balrog-crafter"]
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from lang_agent.config import from_dict
from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.files import read_text
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TEXT_OPTIONS
from lang_agent.yaml_data import read_yaml

MOST = 2**20  # bytes of a suite's file


@dataclass(frozen=True)
class Task:
    """One thing to be good at: an environment, with arguments for the world and for its words."""

    env: str
    name: str = ""
    """Its id and arguments, unless it is named."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """For the world, beside the text options that the task sets for every agent."""
    published: Mapping[str, float] = field(default_factory=dict)
    """System -> what it reached, as a share of 1."""

    @property
    def env_args(self) -> tuple[str, ...]:
        """The arguments as name=value."""
        return tuple(f"{name}={_as_yaml(value)}" for name, value in self.arguments.items())


@dataclass(frozen=True)
class Family:
    """Tasks whose episodes have one mean, beside those of other families."""

    name: str
    tasks: tuple[str, ...]
    """Their names."""
    only_ended: bool = False
    """Whether an episode that was cut off counts as no progress at all."""


@dataclass(frozen=True)
class Suite:
    """Tasks that belong together."""

    name: str
    tasks: tuple[Task, ...]
    about: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    """System -> its mean over the tasks."""
    families: tuple[Family, ...] = ()


def _as_yaml(value: Any) -> str:
    """A value as YAML reads it back: JSON, save of a text that reads as it is."""
    plain = isinstance(value, str) and value and value[0].isalpha() and ": " not in value
    known = value in ("true", "false", "null", "yes", "no", "on", "off", "nan", "inf")
    return value if plain and not known else json.dumps(value, ensure_ascii=False)


def read_task(text: str) -> Task:
    """``ID [name=value ...]`` as a task.

    Raises :class:`LangAgentError` for a text without an id, and for what is no name=value.
    """
    env, *arguments = text.split() or [""]
    if not env or "=" in env:
        raise LangAgentError(f"A task begins with an environment's id, not as {shown(text)} does.")
    values = {}
    for argument in arguments:
        name, equals, written = argument.partition("=")
        if not equals or not name:
            raise LangAgentError(f"The argument {shown(argument)} of {env} must read name=value.")
        values[name] = read_yaml(written, f"The argument {shown(argument)} of {env}")
    return Task(env, " ".join([env, *arguments]), values)


def suite_names() -> list[str]:
    """The suites that ship."""
    folder = files("lang_agent.evaluation") / "suites"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def load_suite(name: str) -> Suite:
    """A suite by its name, or from a TOML file.

    Raises :class:`LangAgentError` for a name that is not known and a file that holds no suite.
    """
    path = Path(name)
    if name.endswith(".toml"):
        text = read_text(path, "the suite", MOST)
        return _suite(path.stem, text, f"The suite '{name}'")
    if name not in suite_names():
        raise unknown("suite", name, [*suite_names(), "a .toml file"])
    shipped = files("lang_agent.evaluation") / "suites" / f"{name}.toml"
    return _suite(name, shipped.read_text(encoding="utf-8"), f"The suite {name}")


def _suite(name: str, text: str, where: str) -> Suite:
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LangAgentError(f"{where} is no TOML: {error}.") from None
    if "include" in data:
        return _included(name, data, where)
    tasks = data.pop("task", None)
    if not isinstance(tasks, list) or not tasks:
        raise LangAgentError(f"{where} has no tasks: each begins with [[task]].")
    read = [from_dict(_Entry, task, f"{where}, task {at}") for at, task in enumerate(tasks, 1)]
    suite = from_dict(_Head, data, where)
    names = [one.name for one in read]
    for twice in names:
        if names.count(twice) > 1:
            raise LangAgentError(f"{where} has two tasks called {twice!r}: name them apart.")
    for one in read:
        for system, figure in one.published.items():
            _check_share(figure, f"{where}, {one.name}, {system}")
    for system, figure in suite.published.items():
        _check_share(figure, f"{where}, {system}")
    made = (Task(one.env, one.name, dict(one.arguments), dict(one.published)) for one in read)
    families = (Family(name, tuple(names), True),) if suite.only_ended else ()
    return Suite(name, tuple(made), suite.about, dict(suite.published), families)


def _included(name: str, data: dict[str, Any], where: str) -> Suite:
    """A suite of the tasks of others."""
    if "task" in data:
        raise LangAgentError(f"{where} has tasks and includes suites: it can do one of both.")
    head = from_dict(_Composed, data, where)
    if not head.include or len({*head.include}) < len(head.include):
        raise LangAgentError(f"{where} must include at least one suite, and none twice.")
    tasks: list[Task] = []
    families = []
    for other in head.include:
        if other not in suite_names() or other == name:
            raise unknown(f"suite in {where}", other, suite_names())
        suite = load_suite(other)
        if any(family.name != other for family in suite.families):
            raise LangAgentError(f"{where} includes {other}, which is made of suites itself.")
        family = other.removeprefix(f"{name}-")
        named = [replace(task, name=f"{family}/{task.name}") for task in suite.tasks]
        tasks += named
        families.append(Family(family, tuple(t.name for t in named), bool(suite.families)))
    return Suite(name, tuple(tasks), head.about, {}, tuple(families))


@dataclass(frozen=True)
class _Entry:
    """A task as it stands in a file."""

    name: str
    env: str
    arguments: dict = field(default_factory=dict)
    published: dict = field(default_factory=dict)


@dataclass(frozen=True)
class _Head:
    """What stands above a file's tasks."""

    about: str = ""
    published: dict = field(default_factory=dict)
    only_ended: bool = False


@dataclass(frozen=True)
class _Composed:
    """What stands in the file of a suite of suites."""

    include: tuple[str, ...]
    about: str = ""


def _check_share(figure: Any, where: str) -> None:
    if isinstance(figure, bool) or not isinstance(figure, (int, float)) or not 0 <= figure <= 1:
        raise LangAgentError(f"{where}: expected a share between 0 and 1, got {shown(figure)}.")


def panel(tasks: Sequence[Task], seeds: range) -> str:
    """Twelve hexadecimal digits that name these tasks on these seeds: figures of one panel can be
    compared, of two not. (Of an agent's own words, as its prompt template, nothing is in it.)"""
    known = [[task.name, task.env, sorted(task.env_args)] for task in tasks]
    text = json.dumps([known, seeds.start, len(seeds)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def into_tasks(text: TextConfig, tasks: Sequence[Task]) -> tuple[TextConfig, tuple[Task, ...]]:
    """Arguments for the world as arguments of every task that does not set them, so that they are
    part of the panel: they change what is played. Those for the words stay the agent's."""
    written = dict(argument.partition("=")[::2] for argument in text.env_args)
    world = {name: value for name, value in written.items() if name not in TEXT_OPTIONS}
    values = {name: read_yaml(value, f"The argument {name}") for name, value in world.items()}
    if not all("=" in argument for argument in text.env_args) or not values:
        return text, tuple(tasks)  # who makes the world says what is wrong with them
    left = tuple(f"{name}={value}" for name, value in written.items() if name not in world)
    changed = (replace(task, arguments={**values, **task.arguments}) for task in tasks)
    return replace(text, env_args=left), tuple(changed)
