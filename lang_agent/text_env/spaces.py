"""The space of all texts."""

from __future__ import annotations

import string
from typing import Any

from gymnasium import spaces

CHARSET = string.printable + "".join(map(chr, range(0xA0, 0x180)))
"""What samples are made of: any printable character of ASCII and of the Latin alphabets."""
LONGEST_SAMPLE = 1024


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
