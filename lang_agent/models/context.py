"""The tokens of an episode as it grows: what was read, and what was answered to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lang_agent.episode import TokenTrace
from lang_agent.models.codec import Codec


class TokenContext:
    """The tokens that an episode's next decision is made after.

    While prompts only grow, by what was answered and what was read since, so do the tokens, in one
    list that all steps share; a prompt that starts anew starts a new list.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.token_ids: list[int] = []
        self._text = ""  # the tokens as text: prompt and what was answered
        self._answer = ""  # the latter alone

    def read(self, prompt: str) -> int:
        """Go on to a prompt; returns how many of the tokens before are still there, its last token
        not among them."""
        prompt = prompt.rstrip(" ")
        before, rest = self.token_ids, prompt[len(self._text) :]
        grows = self._text and prompt.startswith(self._text)
        if grows and self.codec.extends(self._answer, rest):
            kept = len(before)
            before += self.codec.encode(rest)
            return min(kept, len(before) - 1)
        self.token_ids = self.codec.encode_prompt(prompt)
        return common_length(self.token_ids, before)

    def answer(self, prompt: str, text: str, token_ids: Sequence[int]) -> None:
        """Go on by an answer to the prompt that was read last."""
        self.token_ids += token_ids
        self._text, self._answer = prompt.rstrip(" ") + text, text

    def take(self, prompt: str, action: str) -> TokenTrace:
        """Go on by an action that was chosen elsewhere, to a prompt that was read; returns its
        trace, which has no log-probabilities."""
        trace = TokenTrace(self.token_ids, len(self.token_ids) - 1)
        self.answer(prompt, f" {action}", self.codec.encode_action(action))
        return trace


def traces(codec: Codec, steps: Iterable[tuple[str, str]]) -> Iterator[TokenTrace]:
    """The traces of an episode's prompts and actions, in which the model is not run."""
    context = TokenContext(codec)
    for prompt, action in steps:
        context.read(prompt)
        yield context.take(prompt, action)


def common_length(tokens: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lists share from the start, the first one's last left out."""
    length = 0
    for one, two in zip(tokens[:-1], other):  # noqa: B905
        if one != two:
            break
        length += 1
    return length
