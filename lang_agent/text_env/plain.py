"""Plain data: what templates are given, and what can be written down and read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lang_agent.errors import LangAgentError


def plain(value: Any, name: str) -> Any:
    """``value`` as plain data: texts, numbers, truth values, None, and lists, tuples and dicts of
    these. Scalars and arrays of NumPy and torch become numbers and lists.

    Raises:
        LangAgentError: the field ``name`` holds something else.
    """
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if kind is np.ndarray:
        return _array(value, name)
    if kind is list:
        return [one if type(one) is str else plain(one, name) for one in value]
    if kind is tuple:
        return tuple([one if type(one) is str else plain(one, name) for one in value])
    if isinstance(value, Mapping):
        return {_key(key, name): plain(one, name) for key, one in value.items()}
    if isinstance(value, (str, bool, int, float)):
        base = next(base for base in (str, bool, int, float) if isinstance(value, base))
        return getattr(base, "__str__" if base is str else f"__{base.__name__}__")(value)
    if isinstance(value, (list, tuple)):
        return [plain(one, name) for one in value]
    if hasattr(value, "tolist") and callable(value.tolist):
        return _array(value, name)
    raise LangAgentError(
        f"The field {name!r} holds a {kind.__module__}.{kind.__qualname__}, and a template sees "
        "plain data only: give it as a text, a number, or a list or dict of these."
    )


def _array(value: Any, name: str) -> Any:
    """An array or tensor, or one of their scalars, as numbers in lists."""
    data = value.tolist()
    if getattr(getattr(value, "dtype", None), "kind", "") in ("b", "i", "u", "f", "U"):
        return data
    if type(data) is type(value):
        raise LangAgentError(f"The field {name!r} holds {value!r}, which is no plain data.")
    return plain(data, name)


def _key(key: Any, name: str) -> Any:
    if key is None or isinstance(key, (str, int, float)):
        return plain(key, name)
    raise LangAgentError(f"The field {name!r} has the key {key!r}: keys are texts or numbers.")
