"""Whose word is taken for what is imported.

``module:function`` and ``module:Env-v0`` import a module, which runs its code. A person who types
such a name, or calls Python with it, may; a configuration that came with somebody's policy may not,
unless the person says so. Configurations carry the :class:`Source` they were read from
(``config.TextConfig.source``), and everything that is imported by name is imported here, so that no
list of options has to be kept complete.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from lang_agent.errors import LangAgentError, shown, unknown

OFFERED = ("lang_agent.envs", "lang_agent.rewards")
"""The modules whose functions are made to be named: worlds, renderers, wordings and rewards. Others
of the package (``lang_agent.cli.main:run``) do what their arguments say, and a file gives the
arguments.
"""
_NAME = re.compile(r"(?<![\w./-])[^\W\d][\w.]*:[\w./-]+")


@dataclass(frozen=True)
class Source:
    """A file that names come from, and those of its names that may be imported all the same."""

    file: str
    given: frozenset[str] = frozenset()
    """Names that the person gave too."""

    def may_import(self, name: str) -> bool:
        """Whether ``module:name`` was given, or lies where the package offers things by name."""
        return name in self.given or _within(name.partition(":")[0], OFFERED)


_source: ContextVar[Source | None] = ContextVar("source", default=None)


@contextmanager
def names_from(source: Source | None) -> Iterator[None]:
    """Within, names to import are ``source``'s; None: the person's own."""
    if source is None:  # within another file's it stays that file's
        yield
        return
    before = _source.set(source)
    try:
        yield
    finally:
        _source.reset(before)


def names_in(arguments: Iterable[str]) -> frozenset[str]:
    """Every ``module:name`` that stands in these texts."""
    return frozenset(name for text in arguments for name in _NAME.findall(text))


def find(path: str) -> Any:
    """What ``module:name`` names, its module imported; None where the module has no such name.

    Of the package's own modules a file may name what is defined there and no more: they import
    others' functions too.

    Raises :class:`LangAgentError` where there is no such module, where it cannot be imported for
    what it raises, or where a file asks for what it may not have.
    """
    source = _source.get()
    if source is not None and not source.may_import(path):
        raise _refusal(path, source)
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or ":" in name or not name:
        raise LangAgentError(f"Cannot import {shown(path)}: it must read module:name.")
    try:
        found = getattr(import_module(module_name), name, None)
    except LangAgentError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
            f"{error.name}."
        ):  # and not something that the module imports in its turn
            raise LangAgentError(
                f"Cannot import {shown(path)}: there is no module {error.name!r} in the current "
                "folder or among what is installed."
            ) from None
        raise LangAgentError(
            f"Cannot import {shown(path)}, its module fails: {type(error).__name__}: {error}."
        ) from error
    if found is None:
        _refuse_hidden(module_name)
    if source is None or found is None or path in source.given:
        return found
    if not isinstance(found, FunctionType | type) or not _within(found.__module__, OFFERED):
        raise _refusal(path, source)
    return found


def _refuse_hidden(module: str) -> None:
    """Raise :class:`LangAgentError` where the module is another one than the person's, whose file
    in the current folder has the name of something installed."""
    first = module.partition(".")[0]
    own, known = Path(f"{first}.py").resolve(), getattr(sys.modules[first], "__file__", None)
    if own.is_file() and (known is None or Path(known).resolve() != own):
        raise LangAgentError(
            f"The module {first!r} is not the '{own.name}' of the current folder but one that is "
            "installed: give your file another name."
        )


def load_function(path: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    What it is called with comes from the file that named it as well, so that names among its
    arguments are still the file's.
    """
    function = find(path)
    if function is None:
        module = sys.modules[path.partition(":")[0]]
        name = path.partition(":")[2]
        raise unknown(f"function in the module {module.__name__!r}", name, _functions(module))
    if not callable(function):
        raise LangAgentError(f"{path!r} is not a function but {type(function).__name__}.")
    source = _source.get()
    return function if source is None or path in source.given else _OnItsWord(function, source)


def _functions(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, FunctionType)]


class _OnItsWord:
    """A function that imports by name only what its source may."""

    def __init__(self, function: Callable[..., Any], source: Source) -> None:
        update_wrapper(self, function)
        self._function, self._source = function, source

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with names_from(self._source):
            return self._function(*args, **kwargs)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _refusal(name: str, source: Source) -> LangAgentError:
    return LangAgentError(
        f"'{source.file}' asks to import {name!r}, which is not among what lang_agent offers by "
        "name: if you trust that file, say --trust (in Python trust=True), or give the name "
        "yourself."
    )
