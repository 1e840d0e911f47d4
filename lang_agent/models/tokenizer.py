"""A byte-level BPE tokenizer of our own, trained on text that our own templates rendered.

GPT-2's vocabulary spends most of its 50257 entries on words no gridworld has, and several tokens
on each sentence of one. Here merges may cross spaces, so that "You see a" is one token and a whole
observation takes a handful; words never seen still encode, byte by byte.

Where a wording puts words in one another's place, a name must be alike in length to be looked up
alike, whatever its words: one that the texts do not have gets one of ``SLOTS`` tokens, by its hash
(hash embeddings: Svenstrup et al. 2017, arXiv 1709.03933). Two names can meet in one.

Text is split before merging where something new begins: at a line (its newline leads it), after a
colon or comma, after an article, before a number, and on both sides of a thing's name. So a prompt
can grow by lines without changing the tokens it already has, and " red ball" is the same token in
the goal and in what is seen, whatever stands beside it: a policy finds the one by the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lang_agent.words import SLOTS, slot

END_OF_TEXT = "<|endoftext|>"
DEFAULT_TEXTS = Path(__file__).parent / "default_texts.json"
_WORD = re.compile(r"[^\W\d_]+")
_ROW = rf"{_WORD.pattern}(?: {_WORD.pattern})*"
_WORDS = re.compile(rf"(?<= ){_ROW}")
_PHRASES = re.compile(rf"(?<=\d: ){_ROW}|(?:(?<=[:,] )|(?<=^ )){_ROW}(?=[,\n]| \(|$)")
ARTICLES = ("a", "an", "the", "un", "une", "le", "la")
_ARTICLE = rf"(?:{'|'.join(ARTICLES)})\b"
BORDER = re.compile(
    "|".join([r"(?<=[:,])", r"(?= \d)", *(rf"(?<= {word})(?= )" for word in ARTICLES)])
)
"""Where pieces begin anew, whatever the names: after a colon, a comma or an article, and before a
number."""
_NAME = re.compile(
    rf"\b{_ARTICLE} ({_WORD.pattern}(?: (?!{_ARTICLE}){_WORD.pattern}){{0,5}})(?= \d|[:,\n]|$)"
)
SHORT = 3  # words of a name, without what is said of the thing behind it
COMMON = 3  # names that something must be said of to be said of any


def names_in(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """What things are called: the one to three words between an article and a number, a colon, a
    comma or the end of the line; and what is said behind many of them to tell several from others
    ("on your left"), up to six words together."""
    found = {name for text in texts for name in _NAME.findall(text)}
    said: dict[str, set[str]] = {}
    for long in found:
        words = long.split(" ")
        for count in range(1, min(SHORT, len(words) - 1) + 1):
            if (name := " ".join(words[:count])) in found:
                said.setdefault(" ".join(words[count:]), set()).add(name)
    common = [words for words, names in said.items() if len(names) >= COMMON]
    names = {
        name
        for name in found
        if name.count(" ") < SHORT and not any(name.endswith(f" {words}") for words in common)
    }
    return sorted(names), sorted(common)


def pieces(names: Sequence[str]) -> str:
    """The regular expression of a piece, of which each of ``names`` is one by itself."""
    ends = [BORDER.pattern]
    if not names:
        return _piece(ends)
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    ends.append(rf"(?= (?:{known})\b)")
    return rf" (?:{known})\b|{_piece(ends)}"


def _piece(ends: Sequence[str]) -> str:
    return rf"\n?[^\n]+?(?=\n|$|{'|'.join(ends)})|\n"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, renamed: Sequence[str] = (), *, prose: bool = False
) -> PreTrainedTokenizerFast:
    """A tokenizer with at most ``vocab_size`` entries: the 256 bytes, the merges that pay most on
    ``texts``, and one end-of-text token. The same texts give the same tokenizer. The names of
    things (:func:`names_in`) are never merged with their neighbours. ``renamed`` are words for
    which others may stand; where there are any, a text to encode goes through :func:`shared_out`
    first. ``prose`` merges within words alone, as GPT-2's does: a text may then stop, and be gone
    on from, at any word."""
    texts = list(texts)
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=prose)
    names, said = ([], []) if prose else names_in(texts)
    longer = [f"{name} {words}" for name in names for words in said]
    if prose:
        tokenizer.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(pieces([*names, *longer])), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    met_or_not = 2 * [f" {name}" for name in (*names, *longer) if name.count(" ") > 1]
    tokenizer.train_from_iterator(texts + met_or_not, trainer)
    known: dict[str, list[str]] = {}
    if renamed:
        tokenizer.add_tokens(
            [AddedToken(f" {_written(at)}", normalized=False) for at in range(SLOTS)]
        )
        of_names = {*renamed, *(word for name in names for word in name.split(" "))}
        others = {word for text in texts for word in letters_in(text)} - of_names
        known = {"names": names, "other_words": sorted(others)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        **known,
    )


@dataclass(frozen=True)
class Known:
    """What a tokenizer knows that gives each name one token."""

    names: frozenset[str]
    others: frozenset[str]
    """Words that are of no name."""


def knowledge_of(tokenizer: PreTrainedTokenizerBase) -> Known | None:
    """What a tokenizer knows that was made with words to be renamed; None of any other."""
    told = tokenizer.init_kwargs
    if "other_words" not in told:
        return None
    return Known(frozenset(told["names"]), frozenset(told["other_words"]))


def slot_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the tokens that stand for names not known; none of any other tokenizer."""
    if knowledge_of(tokenizer) is None:
        return []
    ids: Any = tokenizer.convert_tokens_to_ids([f" {_written(at)}" for at in range(SLOTS)])
    return [*ids]


def shared_out(text: str, known: Known) -> str:
    """``text`` with each name that is not known written as its slot: words in a row, each after a
    space, that are of names or not known at all. A phrase with such words is one name, whatever
    its other words: what stands without an article behind a number and a colon, or between colons,
    commas, brackets and ends."""

    def write_names(found: re.Match[str]) -> str:
        said = []
        for of_no_name, words in groupby(found[0].split(" "), known.others.__contains__):
            name = " ".join(words)
            said.append(name if of_no_name or name in known.names else _written(slot(name)))
        return " ".join(said)

    def write_phrase(found: re.Match[str]) -> str:
        known_words = write_names(found) == found[0]
        whole = not known_words and not {*found[0].split(" ")} & {*ARTICLES}
        return _written(slot(found[0])) if whole else found[0]

    return _WORDS.sub(write_names, _PHRASES.sub(write_phrase, text))


def _written(at: int) -> str:
    return f"⟨{at}⟩"


def letters_in(text: str) -> list[str]:
    """The runs of letters in a text."""
    return _WORD.findall(text)


@lru_cache(maxsize=1)
def default_texts() -> tuple[str, ...]:
    """Texts of BabyAI's MixedLocal, the mixture that the shipped prompts are made for: what
    :func:`lang_agent.train.vocabulary.sample_texts` finds there, in a file as (text, how often)."""
    counted = json.loads(DEFAULT_TEXTS.read_text(encoding="utf-8"))
    return tuple(text for text, count in counted for _ in range(count))
