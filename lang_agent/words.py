"""What a word is, in any script, and the slot of one that a vocabulary does not have."""

from __future__ import annotations

import unicodedata
import zlib

MARKS = "".join(
    chr(code) for code in range(0x10000) if unicodedata.category(chr(code)).startswith("M")
)
"""What is written on or around a letter and is no letter itself: accents, vowel signs."""

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
"""Ranges of characters, for a regular expression, that are written without spaces between words.
Each of them, with its marks, counts as a word."""

NUMBER = r"\d+(?:[.,]\d+)*"
WORD = rf"[{UNSPACED}][{MARKS}]*|(?:(?![{UNSPACED}])[\w{MARKS}])+"

SLOTS = 1024  # shared by all words that a vocabulary does not have


def slot(word: str) -> int:
    """Which of the ``SLOTS`` an unknown word has, by its hash."""
    return zlib.crc32(word.encode()) % SLOTS
