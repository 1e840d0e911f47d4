"""Writing as an environment: a prompt to go on from, the text as the action, a rubric as reward."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

from lang_agent.errors import LangAgentError
from lang_agent.rubric import Part, Rubric
from lang_agent.text_env import CHARSET

PROMPTS = (
    "Today I",
    "After the long journey we",
    "The children",
    "On the way to work I",
    "My neighbour",
    "In the kitchen my sister",
    "Yesterday evening we",
    "At the market the old man",
)
"""Beginnings of stories, for want of others."""


class TextGenerationEnv(gymnasium.Env[str, str]):
    """One step an episode: the observation is a prompt, the action is any text, the reward is what
    a :class:`Rubric` makes of it.

    ``info`` has ``actions`` (None: any text), ``mission`` (the prompt), ``rewards`` (each part of
    the rubric, after the step) and ``success`` (whether the reward reached ``goal``).

    Args:
        prompts: texts; or a file with one a line (``.txt``) or as the field ``prompt`` of JSON
            lines (``.jsonl``).
        rewards: a rubric's parts, as :class:`Rubric` takes them; or the rubric itself.
        on_error: what becomes of a text that a reward fails at: stop or skip.
        goal: from which reward on a text counts as a success.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(
        self,
        prompts: str | Path | Sequence[str] = PROMPTS,
        rewards: str | Mapping[str, Any] | list[Part] | Rubric = "length",
        *,
        on_error: str = "stop",
        goal: float = 0.8,
    ) -> None:
        self.prompts = load_prompts(prompts) if isinstance(prompts, (str, Path)) else [*prompts]
        if not self.prompts:
            raise LangAgentError("There are no prompts to write from.")
        if not isinstance(rewards, Rubric):
            rewards = Rubric(rewards, on_error=on_error)
        self.rubric = rewards
        self.goal = goal
        self.observation_space = spaces.Text(max_length=1_000_000, min_length=0, charset=CHARSET)
        self.action_space = spaces.Text(max_length=100_000, min_length=0, charset=CHARSET)
        self._prompt = ""
        self._limit: tuple[int, Callable[[str], int]] | None = None

    def limit_prompt(
        self, max_tokens: int, count_tokens: Callable[[str], int], *, with_phrase: bool = False
    ) -> None:
        """Refuse prompts of more than ``max_tokens``: there is nothing to leave out of them."""
        self._limit = (max_tokens, count_tokens)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._prompt = self.prompts[int(self.np_random.integers(len(self.prompts)))]
        if self._limit is not None:
            most, count = self._limit
            if count(self._prompt) > most:
                raise LangAgentError(
                    f"The prompt {self._prompt[:40]!r}... has {count(self._prompt)} tokens, but "
                    f"the context leaves room for {most}."
                )
        return self._prompt, self._info({}, success=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        info = {"prompt": self._prompt}
        reward, parts = self.rubric.judge(self._prompt, action, info)
        return "", reward, True, False, self._info(parts, success=reward >= self.goal)

    def _info(self, parts: Mapping[str, float], success: bool) -> dict[str, Any]:
        return {
            "actions": None,
            "mission": self._prompt,
            "descriptions": [],
            "verdict": None,
            "invalid_action": False,
            "rewards": dict(parts),
            "success": success,
        }


def load_prompts(file: str | Path) -> list[str]:
    """Prompts from a text file, one a line, or from JSON lines with a field ``prompt``."""
    file = Path(file)
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise LangAgentError(f"Cannot read the prompts in '{file}': {error.strerror}.") from None
    if file.suffix != ".jsonl":
        return lines
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(str(json.loads(line)["prompt"]))
        except (ValueError, KeyError, TypeError):
            raise LangAgentError(
                f"'{file}', line {number}, is no JSON object with a 'prompt'."
            ) from None
    return prompts


def register() -> None:
    gymnasium.register("TextGeneration-v0", entry_point=f"{__name__}:TextGenerationEnv")
