"""What a command does with somebody else's code that fails: a world's, a reward's, a renderer's."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from lang_agent.errors import LangAgentError, user_code


def guarded(command: Callable[[], None]) -> None:
    """Run a command, in which nobody but :func:`main` ends the program."""
    try:
        command()
    except SystemExit as error:
        where = user_code(error) or "A library"
        raise LangAgentError(
            f"{where}, ended the program (sys.exit): a world, reward or renderer must raise an "
            "error instead."
        ) from None


def show_bug(error: BaseException) -> None:
    """Print the traceback of what a sentence says of somebody's own code, for its author."""
    cause = error.__cause__
    while cause is not None and isinstance(cause, LangAgentError):
        cause = cause.__cause__
    if cause is not None and user_code(cause):
        traceback.print_exception(cause)
