"""A person's own functions: whether they take what they are given, and a sentence for what they
raise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.stepping import describe


class ExtensionError(LangAgentError):
    """A person's own function that raised, or returned what it may not; the function's own
    exception is the ``__cause__``."""


def check_takes(
    function: Callable[..., Any], what: str, given: Sequence[str], named: Sequence[str] = ()
) -> None:
    """Raise :class:`LangAgentError` for a function that cannot be called as it will be.

    Args:
        what: what the sentence calls it.
        given: what its arguments by position are.
        named: the arguments that it is given by name.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of something built in, which does not say
        return
    try:
        signature.bind(*given, **dict.fromkeys(named))
    except TypeError as error:
        call = ", ".join([*given, *(f"{name}=..." for name in named)])
        takes = ", ".join(signature.parameters)
        raise LangAgentError(
            f"{what} is called with ({call}), and takes ({takes}): {error}."
        ) from None


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Within, whatever a person's own function raises becomes an :class:`ExtensionError` that
    names ``what`` it is; of :class:`LangAgentError` the sentence stays as it is."""
    try:
        yield
    except LangAgentError:
        raise
    except (Exception, SystemExit) as error:
        raise ExtensionError(f"{what} failed: {describe(error).rstrip('.')}.") from error
