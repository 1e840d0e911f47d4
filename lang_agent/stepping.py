"""One reset or step of an environment: its reward is checked, and what it raises is named."""

from __future__ import annotations

import math
import numbers
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from lang_agent.errors import LangAgentError, unknown
from lang_agent.language_env import language_env

RULES = ("stop", "skip", "retry")
RETRIES = 3  # of one episode
MAX_IN_A_ROW = 10  # episodes left out one after the other: then it is no accident


class EnvError(LangAgentError):
    """An environment that raised, or whose reward is no number: the sentence says where.

    Its ``__cause__`` is the environment's own exception, with its traceback.
    """

    seed: int | None = None
    """Of the episode."""


class RewardError(LangAgentError):
    """A reward that is no finite number."""


class AgentError(LangAgentError):
    """An agent that has no answer, such as a remote model that cannot be reached."""


@dataclass
class EnvErrors:
    """What becomes of an episode whose environment raises, and which have.

    ``stop`` raises :class:`EnvError`; ``skip`` leaves the episode out (with all of its group, which
    is compared as a whole), and raises after ``MAX_IN_A_ROW`` without a finished one between;
    ``retry`` plays it anew with the same seed, up to ``RETRIES`` times, and then raises.
    """

    rule: str = "stop"
    seen: list[EnvError] = field(default_factory=list)
    left_out: int = 0
    """Episodes."""
    in_a_row: int = 0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise unknown("on_env_error", self.rule, RULES)


def as_reward(value: Any) -> float:
    """A reward as a float: a number, or an array or tensor without dimensions.

    Raises :class:`RewardError` for anything else, NaN and the infinities.
    """
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    try:
        if isinstance(number, numbers.Real) and math.isfinite(number):
            return float(number)
    except OverflowError:
        pass
    several = getattr(value, "ndim", 0) or isinstance(value, (list, tuple))
    how = "; gymnasium.wrappers.TransformReward makes one number of several" if several else ""
    raise RewardError(f"the reward is {_short(value)}, which is no finite number{how}")


def describe(error: BaseException) -> str:
    """An exception in one line; of ours, its sentence."""
    if isinstance(error, LangAgentError):
        return str(error)
    lines = [line for line in traceback.format_exception_only(error) if line.strip()]
    return lines[-1].strip()[:300]


def env_error(
    env: gymnasium.Env, seed: int, episode: int, step: int | None, action: str, error: BaseException
) -> EnvError:
    """The :class:`EnvError` for an exception in the reset (``step`` None) or a step."""
    what = "the reset" if step is None else f"step {step} (action {_short(action)})"
    where, why = f"at {what} of episode {episode}, seed {seed}", describe(error).rstrip(".")
    if isinstance(error, AgentError):
        named = EnvError(f"The episode ended {where}: {why}.")
    else:
        named = EnvError(
            f"The environment {language_env(env).name} failed {where}: {why}. Mend it, or set "
            "on_env_error to skip or retry."
        )
    named.seed = seed
    return named


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 120 else f"{said[:117]}..."


class Turn:
    """A step that may pause where a text waits for the verdict on its group.

    The step runs in a thread of its own while the caller waits: no two things happen at once. An
    environment steps through all of its wrappers so, and each sees the reward as it will be.
    """

    def __init__(self, step: Callable[[], Any]) -> None:
        self.question: Any = None
        """What is to be judged; None once the step is done."""
        self._answer: Any = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._step = step
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)

    def start(self) -> None:
        """Let the step run to its first question or its end."""
        threading.Thread(target=self._run, daemon=True).start()
        self._asked.acquire()

    def _run(self) -> None:
        try:
            self._result = self._step()
        except BaseException as error:
            self._error = error
        self.question = None
        self._asked.release()

    def ask(self, question: Any) -> Any:
        """Within the step: wait for the answer to a question."""
        self.question = question
        self._asked.release()
        self._answered.acquire()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def answer(self, answer: Any) -> None:
        """Let the step go on, with an answer or an exception, to its next question or its end."""
        self._answer = answer
        self._answered.release()
        self._asked.acquire()

    def result(self) -> Any:
        """What the step returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def abandon(self) -> None:
        """End a step that nobody will answer."""
        if self.question is not None:
            self.answer(GeneratorExit())
