"""The one exception that the command line shows as a sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LangAgentError(ValueError):
    """A mistake in what was asked for: the message names the value, the reason and the fix."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> LangAgentError:
    """The error for a name that is not among ``choices``, with the nearest one suggested."""
    names = sorted(choices)
    close = get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return LangAgentError(f"Unknown {kind} {name!r}.{hint} Choices: {listed}.")
