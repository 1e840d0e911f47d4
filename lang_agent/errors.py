"""The one exception that the command line shows as a sentence instead of a traceback."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType


class LangAgentError(ValueError):
    """A mistake in what was asked for: the message names the value, the reason and the fix."""


class PromptError(LangAgentError):
    """A template that is missing, broken, asks for a field nobody gives, or does not fit."""


class SpentError(LangAgentError):
    """An agent that may spend no more: whoever plays it ends with what there is."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> LangAgentError:
    """The error for a name that is not among ``choices``, with the nearest one suggested."""
    names = sorted(choices)
    close = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return LangAgentError(f"Unknown {kind} {name!r}.{hint} Choices: {listed}.")


def user_code(error: BaseException) -> str | None:
    """Where an exception came through code that is neither ours nor installed ("file, line 3"), so
    that it is its author who needs the traceback; None where it did not."""
    where = None
    for file, line in _frames(error, set()):
        if not file.startswith("<") and not _is_installed(os.path.realpath(file)):
            where = f"{file}, line {line}"
    return where


def _frames(error: BaseException, seen: set[int]) -> Iterator[tuple[str, int]]:
    seen.add(id(error))
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    # Gymnasium before 1.3 raises a TypeError of an environment anew, with the first as its context.
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None and id(behind) not in seen:
        yield from _frames(behind, seen)


def _is_installed(file: str) -> bool:
    """Whether it is of Python, of what is installed, or of this package."""
    here = Path(__file__).resolve().parent
    own = [str(folder) for folder in (here, here.parent / "envs", here.parent / "prompts")]
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    python = [os.path.realpath(sysconfig.get_path(name)) for name in names]
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts) or file.startswith(
        tuple(f"{folder}{os.sep}" for folder in (*own, *python))
    )


def shown(value: object, most: int = 80) -> str:
    """A value for an error, which stays a sentence however long the value is."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."
