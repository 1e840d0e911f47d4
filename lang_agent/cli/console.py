"""Printing: whatever comes from a person, a model or a world is shown as it is.

rich reads ``[bold]`` and ``:key:`` out of strings unless asked not to, and wraps at the terminal's
width, which takes paths and errors apart. Everything here is printed through :func:`say` or, for
tables and bars, through :data:`console`, which reads nothing.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import warnings
from typing import Any

from rich.console import Console
from rich.text import Text

from lang_agent.files import TellWarning


class _Console(Console):
    """rich's, which would end the program where nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False, markup=False, emoji=False)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line made of texts, each as it is or as (text, style)."""
    if console.is_terminal:
        console.print(Text.assemble(*parts), soft_wrap=True)
    else:
        print("".join(part if isinstance(part, str) else part[0] for part in parts))


def complain(error: object) -> None:
    """Print a mistake on standard error, in one line."""
    print(f"lang-agent: {' '.join(str(error).split(chr(10)))}", file=sys.stderr)


def set_up_streams() -> None:
    """Let a terminal that knows few letters replace the others, and read UTF-8 where it knows
    ASCII alone (the locale C), instead of failing; show our own warnings as sentences."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with contextlib.suppress(AttributeError, io.UnsupportedOperation):  # no terminal; read already
        typed: Any = sys.stdin
        ascii_alone = codecs.lookup(typed.encoding or "utf-8").name == "ascii"
        typed.reconfigure(encoding="utf-8" if ascii_alone else None, errors="replace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]


_python_shows = warnings.showwarning


def _show_warning(message: Any, category: type[Warning], *rest: Any) -> None:
    if issubclass(category, TellWarning):
        complain(message)
    else:
        _python_shows(message, category, *rest)


def as_text(argument: str) -> str:
    """What was typed, also where the locale does not know its letters and Python kept the bytes."""
    return os.fsencode(argument).decode("utf-8", errors="replace")
