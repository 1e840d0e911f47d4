"""Several rewards of one text, weighed and added up."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lang_agent.errors import LangAgentError, unknown
from lang_agent.trust import load_function

Reward = Callable[..., Any]
ONE = ("prompt", "text", "tokens", "info")  # what a reward may ask for of one text
MANY = ("prompts", "texts", "tokens_of", "infos")  # and of all texts of a group at once


OF_WORDS = ("length", "diversity", "repetition", "keywords", "matches", "sentences", "rudeness",
            "sentiment")  # fmt: skip
OF_MODELS = ("classified", "coherence", "fluency")
SHIPPED = {name: f"lang_agent.rewards.statistics:{name}" for name in OF_WORDS}
SHIPPED |= {name: f"lang_agent.rewards.model_scores:{name}" for name in OF_MODELS}
"""The rewards that a rubric knows by name: those of models are imported where they are asked for.
"""


class NotJudgedError(LangAgentError):
    """A reward that raised, or came to no finite number."""


@dataclass(frozen=True)
class Part:
    """One reward of a rubric; with weight 0 it is watched only."""

    name: str
    reward: Reward
    weight: float = 1.0


@dataclass(frozen=True)
class Writing:
    """One text to be judged."""

    prompt: str
    text: str
    tokens: Sequence[int] = ()
    """The token ids it was written in; none where nobody knows them."""
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Verdict:
    """What a rubric makes of a text."""

    reward: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """Every reward that had something to say, before weighing."""
    token_rewards: list[float] = field(default_factory=list)
    """The weighed rewards of single tokens, where there are any; ``reward`` holds their sum."""
    judged: bool = True
    """False where a reward failed and ``on_error`` is skip."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each reward took, on the first verdict of a group."""


class Rubric:
    """A weighted sum of rewards.

    A reward is a function that names what it wants: ``prompt``, ``text``, ``tokens``, ``info`` of
    one text, or ``prompts``, ``texts``, ``tokens_of``, ``infos`` of a whole group; it may be async.
    It returns a number, None (not judged: it counts as nothing), or a list with a number for each
    token; for a group, a list with one of these for each text. Arrays and tensors of NumPy and
    torch are numbers (of no dimension) and lists (of one) as well.

    Args:
        parts: name -> weight, or name -> ``{weight: ..., option: ...}``, where a name is that of a
            reward that ships (``SHIPPED``) or ``module:function``; or :class:`Part` objects.
        on_error: what becomes of a text at which a reward raises or is not finite: ``stop`` raises
            :class:`NotJudgedError`, ``skip`` leaves the text out of what is learned.
    """

    def __init__(
        self, parts: str | Mapping[str, Any] | list[Part], *, on_error: str = "stop"
    ) -> None:
        if on_error not in ("stop", "skip"):
            raise unknown("way to handle a reward's error", on_error, ("stop", "skip"))
        if isinstance(parts, str):
            parts = {parts: 1.0}
        if isinstance(parts, Mapping):
            parts = [_part(name, settings) for name, settings in parts.items()]
        if not parts:
            raise LangAgentError("A rubric needs at least one reward.")
        self.parts, self.on_error = list(parts), on_error
        self.seconds = dict.fromkeys((part.name for part in self.parts), 0.0)
        """How long each reward has taken, in all."""
        asked = [inspect.signature(part.reward).parameters for part in self.parts]
        self.compares = any(name in MANY for names in asked for name in names)
        """Whether a reward looks at all texts of a group at once."""
        slow = any(inspect.iscoroutinefunction(part.reward) for part in self.parts)
        self.together = self.compares or slow
        """Whether a group is better judged at once: async rewards then run side by side."""

    def judge(self, writings: Sequence[Writing]) -> list[Verdict]:
        """A verdict on each text of a group."""
        verdicts = [Verdict() for _ in writings]
        for part in self.parts:
            started = time.perf_counter()
            for writing, verdict, value in zip(
                writings, verdicts, self._values(part, writings), strict=True
            ):
                self._add(part, writing, verdict, value)
            took = time.perf_counter() - started
            self.seconds[part.name] += took
            for verdict in verdicts[:1]:
                verdict.seconds[part.name] = took
        return verdicts

    def _values(self, part: Part, writings: Sequence[Writing]) -> Sequence[Any]:
        """What a reward says of each text: an exception where it raised."""
        asked = inspect.signature(part.reward).parameters
        if any(name in asked for name in MANY):
            lists = {
                many: [getattr(writing, one) for writing in writings]
                for many, one in zip(MANY, ONE, strict=True)
                if many in asked
            }
            said = _call(part.reward, [lists])[0]
            if isinstance(said, Exception):
                return [said] * len(writings)
            said = _plain(said)
            if not isinstance(said, (list, tuple)) or len(said) != len(writings):
                raise LangAgentError(
                    f"The reward {part.name!r} was given {len(writings)} texts and returned "
                    f"{said!r}: it must return a list with an entry for each."
                )
            return said
        given = [
            {name: getattr(writing, name) for name in ONE if name in asked} for writing in writings
        ]
        return _call(part.reward, given)

    def _add(self, part: Part, writing: Writing, verdict: Verdict, value: Any) -> None:
        """Add what a reward said of a text to the verdict on it."""
        try:
            if isinstance(value, Exception):
                raise value
            value = _plain(value)
            if value is None:
                return
            by_token = isinstance(value, (list, tuple))
            numbers = [_number(one) for one in (value if by_token else (value,))]
            if not all(map(math.isfinite, numbers)):
                raise ValueError(f"it came to {value}")
            if by_token and len(numbers) != len(writing.tokens):
                raise ValueError(f"{len(numbers)} rewards for {len(writing.tokens)} tokens")
        except LangAgentError:
            raise
        except Exception as error:
            if self.on_error == "stop":
                raise NotJudgedError(
                    f"The reward {part.name!r} failed at {writing.text!r}: {error!r}."
                ) from error
            verdict.judged = False
            return
        verdict.parts[part.name] = sum(numbers)
        verdict.reward += part.weight * sum(numbers)
        if by_token and part.weight:
            before = verdict.token_rewards or [0.0] * len(numbers)
            verdict.token_rewards = [
                b + part.weight * n for b, n in zip(before, numbers, strict=True)
            ]


def _plain(value: Any) -> Any:
    """Arrays, tensors and their scalars as lists and numbers; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _number(value: Any) -> float:
    value = _plain(value)
    if not hasattr(value, "__float__"):
        raise TypeError(
            f"it returned {value!r}, but a reward is a number, None, or a list with a number for "
            "each token"
        )
    return float(value)


def _call(reward: Reward, given: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What a reward returns for each set of arguments, or the exception that it raises; those of
    an async one run together."""
    results: list[Any] = []
    for arguments in given:
        try:
            results.append(reward(**arguments))
        except LangAgentError:
            raise
        except Exception as error:
            results.append(error)
    if not any(map(inspect.isawaitable, results)):
        return results

    async def everything() -> list[Any]:
        return await asyncio.gather(*results, return_exceptions=True)

    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop running already
        return pool.submit(asyncio.run, everything()).result()


def _part(name: str, settings: Any) -> Part:
    options = dict(settings) if isinstance(settings, Mapping) else {"weight": settings}
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise LangAgentError(f"The weight of the reward {name!r} is {weight!r}, not a number.")
    path = SHIPPED.get(name, name)
    if ":" not in path:
        raise unknown("reward", name, [*SHIPPED, "module:function"])
    reward: Reward = load_function(path)
    parameters = inspect.signature(reward).parameters
    for option in options:
        if option not in parameters or option in (*ONE, *MANY):
            raise LangAgentError(f"The reward {name!r} has no option {option!r}.")
    for parameter in parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
        if needed and parameter.name not in (*ONE, *MANY, *options):
            raise LangAgentError(
                f"The reward {name!r} asks for {parameter.name!r}: what can be asked for is "
                f"{', '.join((*ONE, *MANY))}."
            )
    return Part(name, partial(reward, **options), float(weight))
