"""Between text and token ids, for any tokenizer: prompts, what follows them, and what was written.

A prompt is encoded as the model's own tokenizer encodes a text: with the beginning-of-sequence
token where it adds one, and never with an end. What follows a prompt (a phrase, a further turn) is
encoded as the continuation that it is: tokenizers that put a space before every text (Llama's,
Mistral's, T5's) are shown some text before it, and those tokens are taken off again.

The border between a prompt and its answer is always a border of tokens. Nearly every tokenizer
begins one there anyway (at the space); where one would merge across it, prompt and answer keep the
tokens that each has by itself, which is then another way to write the same text.

Chat models read a prompt as a user's message in their own template, and the answer is what the
assistant says. A prompt that grows is one message that grows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lang_agent.errors import LangAgentError
from lang_agent.models.memo import Memo
from lang_agent.models.tokenizer import knowledge_of, shared_out

_LINES = re.compile(r"(?<=\S)(?=\n\S)")
_BEFORE = ("x", ":", "\n", "x x")  # what a continuation may follow
_AFTER = ("y", " y", "\ny", "5", ".")
_ENDS = ("x", "X", "7", ".", ":", ",", "!", "?", ")", "'", '"', "-", "_", "*", "é", "中", "🙂")
_LONGEST = 50_000  # characters that are encoded at once: a line of many more can end a tokenizer


class Codec:
    """A tokenizer, as a policy uses it.

    Args:
        chat: whether prompts are messages to an assistant, in the tokenizer's chat template; unless
            told, where it has one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: bool | None = None) -> None:
        self.tokenizer = tokenizer
        self._known = knowledge_of(tokenizer)
        self._memory = Memo(self._ids, 65536)
        self.begin = self._begin()
        # Whether a text's tokens are the same wherever it stands, and those of lines the text's:
        self.joins = bool(self._known) or all(
            self._text([*self._ids(before), *self._ids(after)]) == before + after
            for before in _BEFORE
            for after in _AFTER
        )
        self.by_lines = self.joins and all(
            self._ids(f"{end}\n{start}") == [*self._ids(end), *self._ids(f"\n{start}")]
            for end in _ENDS
            for start in _ENDS
        )
        self.chat = bool(tokenizer.chat_template) if chat is None else chat
        self.lead = " "
        """What stands between a prompt and an answer to it."""
        if self.chat:
            self._begin_chat()
        self.overhead = len(self.encode_prompt("x")) - len(self.encode("x"))
        """The most tokens of a prompt that are not its text's: of its beginning (and a space that
        the tokenizer puts there) and of its chat template."""

    # -- text to tokens ------------------------------------------------------------------------

    def encode_prompt(self, prompt: str) -> list[int]:
        """A prompt's token ids, without its trailing space (the answer brings one)."""
        prompt = prompt.rstrip(" ")
        if self.chat:
            return self._ids(self._message(prompt))
        ids = self.encode(prompt) if self.joins else self._ids(prompt)
        return [*self.begin, *ids] or [self.tokenizer.bos_token_id or 0]

    def encode_action(self, action: str) -> list[int]:
        """The token ids of a phrase that answers a prompt."""
        if not action.strip():
            raise LangAgentError(f"An action must have words: {action!r} has none.")
        return self.encode_answer(action)

    def encode_answer(self, answer: str) -> list[int]:
        """The token ids of a phrase, or another text, that answers a prompt."""
        if self.chat:
            return self._following([self._message("x")], self.lead + answer)
        return self.encode(self.lead + answer)

    def encode(self, text: str) -> list[int]:
        """The token ids of a text in the middle of another, line by line through a memory where
        that makes no difference: the lines of a world repeat.

        In GPT-2's vocabulary, and in ours, a newline between two visible characters starts a new
        piece, so that the lines' tokens are the text's tokens, and a prompt that grows by whole
        lines keeps the tokens it has. Other tokenizers get whole texts.
        """
        if self.by_lines:
            return [token for line in _LINES.split(text) for token in self._memory(line)]
        return self._ids(text) if self.joins else self._following(_BEFORE, text)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text in the middle of another takes."""
        return len(self.encode(text))

    def extends(self, answer: str, rest: str) -> bool:
        """Whether a prompt that goes on from an answer with ``rest`` is the tokens until then and
        those of ``rest``: not in a chat template, nor where a token would cross the border, nor
        where the answer's tokens are bytes that are no text."""
        if "\ufffd" in answer:
            return False
        both = [*self.encode(answer), *self.encode(rest)]
        return not self.chat and self.encode(answer + rest) == both

    def _following(self, befores: Sequence[str], text: str) -> list[int]:
        """``text`` as it is encoded after the first of ``befores`` that keeps its own tokens."""
        for before in befores:
            start, whole = self._memory(before), self._ids(before + text)
            if whole[: len(start)] == start:
                return whole[len(start) :]
        return self._ids(text)

    def _ids(self, text: str) -> list[int]:
        """The tokens of a text by itself, without those of a beginning and an end."""
        if self._known:
            text = shared_out(text, self._known)
        if len(text) <= _LONGEST:
            return self.tokenizer.encode(text, add_special_tokens=False)
        first, *others = _cut(text)
        ids = self._ids(first)
        for other in others:
            ids += self._ids(other) if self.joins else self._following(_BEFORE, other)
        return ids

    def _begin(self) -> list[int]:
        """The tokens that the tokenizer puts before a text (that of the beginning, or none)."""
        plain = self.tokenizer.encode("x", add_special_tokens=False)
        whole = self.tokenizer.encode("x")
        for at in range(len(whole) - len(plain) + 1):
            if whole[at : at + len(plain)] == plain:
                return whole[:at]
        return []

    # -- chat ----------------------------------------------------------------------------------

    def _message(self, prompt: str, answer: str | None = None) -> str:
        """A prompt as a user's message, up to where the assistant begins; or with its answer."""
        messages = [{"role": "user", "content": prompt}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=answer is None,
                enable_thinking=False,  # models that think first are to answer at once
            )
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise LangAgentError(
                f"The tokenizer's chat template fails on a user's message ({reason}): "
                "use the model without it (--chat False)."
            ) from None
        return str(text)

    def _begin_chat(self) -> None:
        if not self.tokenizer.chat_template:
            raise LangAgentError(
                "The model's tokenizer has no chat template, so that it cannot be used as a chat "
                "model: leave out --chat True."
            )
        asked, answered = self._message("x"), self._message("x", "Yes")
        before, found, _ = answered.removeprefix(asked).partition("Yes")
        space = found and answered.startswith(asked) and not before.strip()
        self.lead = before if space else ""

    # -- tokens to text ------------------------------------------------------------------------

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens in the middle of a text, special tokens left out."""
        if self.joins:
            return self._text(ids)
        before = self._memory("x")
        start, whole = self._text(before), self._text([*before, *ids])
        return whole.removeprefix(start) if whole.startswith(start) else self._text(ids)

    def _text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def tokens_with(self, char: str) -> frozenset[int]:
        """The tokens whose text holds ``char``: after no other can a text have come to end so."""
        single = [[token] for token in range(len(self.tokenizer))]
        texts = self.tokenizer.batch_decode(single, clean_up_tokenization_spaces=False)
        return frozenset(token for token, text in enumerate(texts) if char in text)


def _cut(text: str) -> list[str]:
    """A text in parts of at most ``_LONGEST`` characters, cut before a newline or space if any."""
    parts = []
    at = 0
    while at < len(text):
        end = at + _LONGEST
        if end < len(text):
            space = max(text.rfind("\n", at + 1, end), text.rfind(" ", at + 1, end))
            end = space if space > 0 else end
        parts.append(text[at:end])
        at = end
    return parts


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a text, of which a chat model has several: those that the model's
    configurations name, and the tokenizer's."""
    named = [
        getattr(source, "eos_token_id", None)
        for source in (model.generation_config, model.config, tokenizer)
    ]
    ends: list[int] = []
    for name in named:
        ends += name if isinstance(name, (list, tuple)) else [] if name is None else [name]
    return frozenset(ends)
