"""The space of all texts, also in the memory that Gymnasium's AsyncVectorEnv shares."""

from __future__ import annotations

import string
from collections.abc import Sequence
from ctypes import c_uint8
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

from lang_agent.errors import LangAgentError

CHARSET = string.printable + "".join(map(chr, range(0xA0, 0x180)))
"""What samples are made of: any printable character of ASCII and of the Latin alphabets."""
LONGEST_SAMPLE = 1024
LENGTH = np.dtype(np.int64)
"""Before every text in shared memory: how many bytes of UTF-8 it has."""


class AnyText(spaces.Text):
    """Every string, in any script and of any length, is a member; samples are short and Latin.

    ``max_length`` says how long the texts are that one should expect.
    """

    def __init__(self, max_length: int = 1_000_000, seed: Any = None) -> None:
        super().__init__(max_length, min_length=0, charset=CHARSET, seed=seed)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        if mask is None and probability is None:
            most = min(self.max_length, LONGEST_SAMPLE)
            mask = (int(self.np_random.integers(most + 1)), None)
        return super().sample(mask, probability)

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "AnyText()"


# AsyncVectorEnv shares observations between processes, by default, through the three functions of
# Gymnasium that are registered here. What Gymnasium 1.4 has for Text knows the characters of the
# space's alphabet alone, and its texts are read once, before there are any.


@create_shared_memory.register(AnyText)
def _create(space: AnyText, n: int = 1, ctx: Any = None) -> Any:
    """Memory for ``n`` texts of ``max_length`` bytes each."""
    return ctx.Array(c_uint8, n * _stride(space))


@read_from_shared_memory.register(AnyText)
def _read(space: AnyText, shared_memory: Any, n: int = 1) -> Sequence[str]:
    return SharedTexts(_rows(space, shared_memory).reshape(n, -1))


@write_to_shared_memory.register(AnyText)
def _write(space: AnyText, index: int, value: str, shared_memory: Any) -> None:
    text = value.encode("utf-8", "surrogatepass")
    if len(text) > space.max_length:
        raise LangAgentError(
            f"The prompt has {len(text)} bytes, and the memory that AsyncVectorEnv shares holds "
            f"{space.max_length} of each: give it shared_memory=False (to gymnasium.make_vec "
            "vector_kwargs={'shared_memory': False})."
        )
    row = _rows(space, shared_memory)[index]
    row[: LENGTH.itemsize].view(LENGTH)[0] = len(text)
    row[LENGTH.itemsize :][: len(text)] = np.frombuffer(text, np.uint8)


def _stride(space: AnyText) -> int:
    return LENGTH.itemsize * (1 + -(-space.max_length // LENGTH.itemsize))


def _rows(space: AnyText, shared_memory: Any) -> np.ndarray:
    """(n, bytes of a length and a text) of what is shared."""
    return np.frombuffer(shared_memory.get_obj(), np.uint8).reshape(-1, _stride(space))


class SharedTexts(Sequence[str]):
    """The texts in shared memory as they stand whenever they are looked at; a deep copy, which
    AsyncVectorEnv makes unless it is told not to, is a tuple of them."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        length = int(row[: LENGTH.itemsize].view(LENGTH)[0])
        text = row[LENGTH.itemsize :][:length]
        return text.tobytes().decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: Any) -> tuple[str, ...]:
        return tuple(self)
