"""Results of a function, kept where they will be asked for again."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Memo(Generic[T]):
    """A function whose late results are kept; in a copy, and in another process, none are yet."""

    def __init__(self, function: Callable[..., T], most: int) -> None:
        self._function, self._most = function, most
        self._kept = lru_cache(maxsize=most)(function)

    def __call__(self, *arguments: Any) -> T:
        return self._kept(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return Memo, (self._function, self._most)
