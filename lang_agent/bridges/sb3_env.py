"""Text worlds for Stable-Baselines3 and sb3-contrib: token ids in a Box, phrases in a Discrete.

Nothing here needs the extra ``sb3``: what learns is in :mod:`lang_agent.bridges.sb3_features`, and
:mod:`lang_agent.bridges.sb3_agent` makes an agent of what was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from transformers import PreTrainedTokenizerBase

from lang_agent.errors import LangAgentError, shown
from lang_agent.language_env import PromptLimit, language_env
from lang_agent.models.codec import Codec
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.tokenizer import train_tokenizer
from lang_agent.train.vocabulary import sample_texts


class TokenSpace(spaces.Box):
    """Prompts as (length,) int32 token ids, each raised by one: a shorter prompt is filled up with
    0 on its right, and 0 is no token. It keeps its tokenizer, so that a policy of Stable-Baselines3
    that was saved with it can read prompts again.

    Args:
        length: the most tokens of a prompt.
        prompt_name: of the template that the prompts are of.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, length: int, prompt_name: str = ""
    ) -> None:
        super().__init__(0, len(tokenizer), (length,), np.int32)
        self.tokenizer, self.length, self.prompt_name = tokenizer, length, prompt_name

    @cached_property
    def codec(self) -> Codec:
        return Codec(self.tokenizer, chat=False)

    @property
    def prompt_limit(self) -> PromptLimit:
        """What prompts are kept within: the oldest turns leave, as before a model's context."""
        return PromptLimit(
            self.length - self.codec.overhead, lambda text: len(self.codec.encode(text))
        )

    def encode(self, prompt: str) -> np.ndarray:
        """The (length,) observation that a prompt is; raises :class:`LangAgentError` for one that
        has more tokens."""
        return self.fill(self.codec.encode_prompt(prompt))

    def fill(self, ids: Sequence[int]) -> np.ndarray:
        """The (length,) observation of token ids."""
        if len(ids) > self.length:
            raise LangAgentError(
                f"A prompt of {len(ids)} tokens does not fit an observation of {self.length}: make "
                f"the environment with length={len(ids)} or more, or take a shorter template."
            )
        row = np.zeros(self.length, np.int32)
        row[: len(ids)] = np.asarray(ids, np.int32) + 1
        return row

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TokenSpace)
            and self.length == other.length
            and self.tokenizer.get_vocab() == other.tokenizer.get_vocab()
        )

    __hash__ = None  # type: ignore[assignment]


class PhraseSpace(spaces.Discrete):
    """The numbers of a fixed list of phrases."""

    def __init__(self, phrases: Sequence[str]) -> None:
        super().__init__(len(phrases))
        self.phrases = tuple(phrases)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhraseSpace) and self.phrases == other.phrases

    __hash__ = None  # type: ignore[assignment]


class TokenEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A text environment whose observations are token ids (:class:`TokenSpace`) and whose actions
    are the numbers of its phrases (:class:`PhraseSpace`).

    :meth:`action_masks` says which phrases are admissible, for MaskablePPO; to an algorithm without
    masks the others are invalid actions, of which the environment makes what its
    ``invalid_action`` says. ``info`` has ``is_success`` too, which Stable-Baselines3 logs.

    Args:
        tokenizer: by default one that is made for what there is to read in this environment
            (:func:`new_tokenizer`); environments that learn together share one.
        length: the most tokens of a prompt. Older turns leave a prompt that would be longer.
        phrases: all that may ever be said; by default all that the environment, or any part of a
            mixture, has.

    Raises:
        LangAgentError: the environment takes free text; or, at a reset or a step, a phrase that is
            not on the list, or a prompt that cannot be kept within ``length``.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        length: int = 256,
        phrases: Sequence[str] | None = None,
    ) -> None:
        super().__init__(env)
        speaking = language_env(env)
        if phrases is None:
            phrases = [phrase for part in speaking.parts for phrase in part.phrases]
        if not phrases:
            raise LangAgentError(
                f"{speaking.name} has no list of phrases: where it takes free text, use "
                "TokenWritingEnv, or lang_agent's own trainer; else give phrases=[...], all that "
                "may ever be said."
            )
        name = speaking.parts[0].prompt_name
        self._tokens = TokenSpace(tokenizer or new_tokenizer([env]), length, name)
        self.phrases = tuple(dict.fromkeys(phrases))
        self.observation_space: gymnasium.Space[Any] = self._tokens
        self.action_space: gymnasium.Space[Any] = PhraseSpace(self.phrases)
        self._number = {phrase: at for at, phrase in enumerate(self.phrases)}
        self._limit = self._tokens.prompt_limit
        self._mask = np.ones(len(self._number), bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        language_env(self.env).prompt_limit = self._limit
        prompt, info = self.env.reset(seed=seed, options=options)
        return self._observation(prompt, info), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        phrase = self.phrases[int(action)]
        prompt, reward, terminated, truncated, info = self.env.step(phrase)
        info["is_success"] = bool(info.get("success", False))
        return self._observation(prompt, info), float(reward), terminated, truncated, info

    def action_masks(self) -> np.ndarray:
        """(number of phrases,) bool: which of them are admissible now."""
        return self._mask

    def _observation(self, prompt: str, info: dict[str, Any]) -> np.ndarray:
        self._mask = np.zeros(len(self._number), bool)
        for phrase in info["actions"] or ():
            if phrase not in self._number:
                raise LangAgentError(
                    f"{language_env(self.env).name} now offers {shown(phrase)}, which is not among "
                    f"the {len(self._number)} phrases that it began with, and Stable-Baselines3 "
                    "learns one fixed list: give phrases=[...], all that may ever be said, or "
                    "leave out a wording that draws other phrases."
                )
            self._mask[self._number[phrase]] = True
        return self._tokens.encode(prompt)


def new_tokenizer(
    envs: Sequence[gymnasium.Env[str, str]], vocabulary: int = SIZES["nano"].vocabulary
) -> PreTrainedTokenizerBase:
    """The tokenizer that a new model of these environments would get from ``lang-agent train``: of
    at most ``vocabulary`` tokens, trained on what random play reads."""
    names = [word for env in envs for word in language_env(env).renamed_words]
    return train_tokenizer(sample_texts(envs), vocabulary, list(dict.fromkeys(names)))
