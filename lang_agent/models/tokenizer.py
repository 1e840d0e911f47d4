"""A byte-level BPE tokenizer of our own, trained on text that our own templates rendered.

GPT-2's vocabulary spends most of its 50257 entries on words no gridworld has, and several tokens
on each sentence of one. Here merges may cross spaces, so that "You see a" is one token and a whole
observation takes a handful; words never seen still encode, byte by byte.

Where a wording puts words in one another's place, words must be alike in length to be looked up
alike: there each after a space is one token, and one that the texts do not have gets one of
``SLOTS`` tokens, by its hash (hash embeddings: Svenstrup et al. 2017, arXiv 1709.03933). Two words
can meet in one.

Text is split before merging where something new begins: at a line (its newline leads it), after a
colon or comma, after an article, before a number, and on both sides of a thing's name. So a prompt
can grow by lines without changing the tokens it already has, and " red ball" is the same token in
the goal and in what is seen, whatever stands beside it: a policy finds the one by the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lang_agent.words import SLOTS, slot

END_OF_TEXT = "<|endoftext|>"
DEFAULT_TEXTS = Path(__file__).parent / "default_texts.json"
_WORD = re.compile(r"[^\W\d_]+")
_AFTER_SPACE = re.compile(rf"(?<= ){_WORD.pattern}")
ARTICLES = ("a", "an", "the", "un", "une", "le", "la")
_ARTICLE = rf"(?:{'|'.join(ARTICLES)})\b"
_NAME = re.compile(
    rf"\b{_ARTICLE} ({_WORD.pattern}(?: (?!{_ARTICLE}){_WORD.pattern}){{0,5}})(?= \d|[:,\n]|$)"
)
SHORT = 3  # words of a name, without what is said of the thing behind it
COMMON = 3  # names that something must be said of to be said of any


def names_in(texts: Iterable[str]) -> list[str]:
    """What things are called: the one to three words between an article and a number, a colon, a
    comma or the end of the line; and each with what tells several of them from others ("on your
    left"), up to six words together."""
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
    return sorted(names | {f"{name} {words}" for name in names for words in common})


def pieces(names: Sequence[str], *, words: bool = False) -> str:
    """The regular expression of a piece, of which each of ``names`` is one by itself.

    With ``words`` the names are single words; commas are then pieces too, and a place ("2 steps
    left and 1 step forward") is one as a whole.
    """
    ends = [r"(?<=[:,])", *(rf"(?<= {article})(?= )" for article in ARTICLES)]
    ends += [r"(?=[:,])", r"(?<! and)(?= \d)"] if words else [r"(?= \d)"]
    if not names:
        return _piece(ends)
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    ends.append(rf"(?= (?:{known})\b)")
    return rf" (?:{known})\b|{_piece(ends)}"


def _piece(ends: Sequence[str]) -> str:
    return rf"\n?[^\n]+?(?=\n|$|{'|'.join(ends)})|\n"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, names: Sequence[str] = (), *, prose: bool = False
) -> PreTrainedTokenizerFast:
    """A tokenizer with at most ``vocab_size`` entries: the 256 bytes, the merges that pay most on
    ``texts``, and one end-of-text token. The same texts give the same tokenizer. ``names`` are
    words that are never merged with their neighbours; where there are any, a text to encode goes
    through :func:`shared_out` first. Without, the names of things are found in the texts
    (:func:`names_in`). ``prose`` merges within words alone, as GPT-2's does: a text may then
    stop, and be gone on from, at any word."""
    texts = list(texts)
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=prose)
    if prose:
        tokenizer.pre_tokenizer = byte_level
    else:
        found = [] if names else names_in(texts)
        texts += 2 * [f" {name}" for name in found if name.count(" ") > 1]  # met or not
        piece = pieces(names, words=True) if names else pieces(found)
        split = pre_tokenizers.Split(Regex(piece), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    known: dict[str, list[str]] = {}
    if names:
        tokenizer.add_tokens(
            [AddedToken(f" {_written(at)}", normalized=False) for at in range(SLOTS)]
        )
        words = {word for text in texts for word in letters_in(text)}
        known = {"known_words": sorted(words | {*names})}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        **known,
    )


def known_words(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The words that a tokenizer made with names knows; none for any other, which knows all."""
    return frozenset(tokenizer.init_kwargs.get("known_words", ()))


def shared_out(text: str, known: frozenset[str]) -> str:
    """``text`` with each word after a space that is not ``known`` written as its slot."""

    def write(found: re.Match[str]) -> str:
        word = found[0]
        return word if word in known else _written(slot(word))

    return _AFTER_SPACE.sub(write, text)


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
