"""Environments that speak: what they offer beside Gymnasium's own interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from lang_agent.errors import LangAgentError


@dataclass(frozen=True)
class PromptLimit:
    """How much an agent can read."""

    max_tokens: int
    count_tokens: Callable[[str], int]
    with_phrase: bool = False
    """Whether the longest of the episode's phrases must still fit behind the prompt."""


@dataclass(frozen=True)
class Achieved:
    """A goal that an episode has reached, whatever its mission was."""

    task: str
    """What kind of goal it is."""
    mission: str
    """The goal in the world's own words."""
    steps: tuple[int, ...]
    """At which steps, from 0, its parts were done; with the last it was reached."""
    reward: float = 1.0
    """What the world pays for it with that step."""


class ExpertLostError(LangAgentError):
    """The expert cannot say what to do any more, after what was done."""


class LanguageEnv(gymnasium.Env[str, str]):
    """An environment whose observations are prompts and whose actions are words.

    ``info["actions"]`` has the admissible phrases of the state, or None where any text is an
    action. Whatever else an environment can do (an expert, goals that it recognises, rewards that
    compare the texts of a group) has a default here that says that it cannot.
    """

    prompt_limit: PromptLimit | None = None
    """From the next reset on, every prompt is kept within it."""
    judge: Callable[[Any, Any], Any] | None = None
    """(rubric, writing) -> verdict, in place of the environment's own: who plays the episodes of a
    group puts it there, so that their texts are judged together."""

    weights: Sequence[float] = ()
    """Of a mixture: how often each of its parts is drawn, relative to the others."""
    legend: str = ""
    """What the signs in its prompts stand for, where they are no words; for people."""
    drawn_weights: Sequence[float] | None = None
    """In their place, while a curriculum moves them."""

    @property
    def name(self) -> str:
        """What errors call it: its id where it has one."""
        return self.spec.id if self.spec else type(self).__name__

    @property
    def prompt_name(self) -> str:
        """Of the prompt template, without its folder; empty where there is none."""
        return ""

    @property
    def playing(self) -> LanguageEnv:
        """The environment of the episode: of a mixture, the part that is being played."""
        return self

    @property
    def parts(self) -> Sequence[LanguageEnv]:
        """The environments that episodes are played in: of a mixture, its parts."""
        return (self,)

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases of this episode, in any state; none where any text is an action."""
        return ()

    @property
    def renamed_words(self) -> tuple[str, ...]:
        """The words that other words take the place of, from episode to episode."""
        return ()

    @property
    def judges_together(self) -> bool:
        """Whether the texts of a group of episodes are better judged at once."""
        return False

    @property
    def instruction(self) -> Mapping[str, Any]:
        """What the episode's mission is made of, where the world knows: ``verb``, ``object``,
        ``colour`` (texts; those of the parts in the order in which they are to be done, with commas
        between) and ``parts`` (how many)."""
        return {}

    @property
    def cells(self) -> Mapping[str, Any] | None:
        """The whole grid as it stands, for drawing it: ``size`` (width, height), ``grid`` (three
        integers a cell, column after column), ``agent`` (x, y, direction) and ``carrying``; None
        where the world is no grid."""
        return None

    def expert_action(self, last_action: str | None) -> str:
        """The phrase that the world's expert would say now.

        Call it at every step, with ``last_action=None`` at the start of an episode and then with
        what was said. Raises :class:`LangAgentError` where there is no expert, and
        :class:`ExpertLostError` once it knows no more.
        """
        raise LangAgentError(f"{self.name} has no expert.")

    def watch(self, symmetries: bool = False) -> None:
        """From the next reset on, keep track of the goals that episodes reach; with ``symmetries``,
        :meth:`relabelled` shows them through one of the world's.

        Raises :class:`LangAgentError` where the world does not tell.
        """
        raise LangAgentError(
            f"{self.name} does not tell which goals an episode has reached, which hindsight needs: "
            "give World(goal_detector=...), or set hindsight to 0."
        )

    @property
    def achieved(self) -> Sequence[Achieved]:
        """The goals that the episode has reached so far, once it is watched (:meth:`watch`)."""
        return ()

    def relabelled(self, mission: str, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
        """(prompt, action) of the episode's steps so far, as they would have read with another
        mission (in the world's own words); seen through one of the world's symmetries where it is
        watched with them. It must have been watched."""
        raise LangAgentError(f"{self.name} keeps nothing of its episodes: call watch() first.")


class AsyncEnv(LanguageEnv):
    """An environment that answers later: whoever plays many of them acts meanwhile in others.

    One reset or step at a time: the next may begin when the one before has been answered.
    """

    def reset_later(self, seed: int) -> Future[Any]:
        """What ``reset(seed=seed)`` returns, or raises, when it is there."""
        raise NotImplementedError

    def step_later(self, action: str) -> Future[Any]:
        """What ``step(action)`` returns, or raises, when it is there."""
        raise NotImplementedError


class _Silent(LanguageEnv):
    """What an environment of somebody else's offers, which speaks and can do no more."""

    def __init__(self, env: gymnasium.Env) -> None:
        self.env = env
        self.spec = env.spec

    @property
    def name(self) -> str:
        return self.spec.id if self.spec else type(self.env.unwrapped).__name__


def language_env(env: gymnasium.Env) -> LanguageEnv:
    """The environment that speaks inside of its wrappers."""
    inner = env.unwrapped
    return inner if isinstance(inner, LanguageEnv) else _Silent(env)
