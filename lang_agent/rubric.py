"""Several rewards of one text, weighed and added up."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lang_agent import rewards as shipped
from lang_agent.errors import LangAgentError, unknown
from lang_agent.text_env import load_function

Reward = Callable[..., Any]
NAMES = ("prompt", "text", "info")  # what a reward may ask for


class NotJudgedError(LangAgentError):
    """A reward that raised, or came to no finite number."""


@dataclass(frozen=True)
class Part:
    """One reward of a rubric; with weight 0 it is watched only."""

    name: str
    reward: Reward
    weight: float = 1.0


class Rubric:
    """A weighted sum of rewards.

    Args:
        parts: name -> weight, or name -> ``{weight: ..., option: ...}``, where a name is that of a
            reward of :mod:`lang_agent.rewards` or ``module:function``; or :class:`Part` objects.
        on_error: what becomes of a text at which a reward raises or is not finite: ``stop`` raises
            :class:`NotJudgedError`, ``skip`` gives it nothing from that reward.
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

    def judge(
        self, prompt: str, text: str, info: Mapping[str, Any] | None = None
    ) -> tuple[float, dict[str, float]]:
        """The weighted sum, and every reward that had something to say."""
        given = {"prompt": prompt, "text": text, "info": info or {}}
        said: dict[str, float] = {}
        for part in self.parts:
            started = time.perf_counter()
            try:
                value = _value(part, given)
            except NotJudgedError:
                if self.on_error == "stop":
                    raise
                value = None
            self.seconds[part.name] += time.perf_counter() - started
            if value is not None:
                said[part.name] = value
        return sum(part.weight * said.get(part.name, 0.0) for part in self.parts), said


def _part(name: str, settings: Any) -> Part:
    options = dict(settings) if isinstance(settings, Mapping) else {"weight": settings}
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise LangAgentError(f"The weight of the reward {name!r} is {weight!r}, not a number.")
    reward: Reward
    if ":" in name:
        reward = load_function(name)
    else:
        known = [
            key
            for key, value in vars(shipped).items()
            if inspect.isfunction(value)
            and value.__module__ == shipped.__name__
            and not key.startswith("_")
            and key != "words_of"
        ]
        if name not in known:
            raise unknown("reward", name, [*known, "module:function"])
        reward = getattr(shipped, name)
    parameters = inspect.signature(reward).parameters
    for option in options:
        if option not in parameters or option in NAMES:
            raise LangAgentError(f"The reward {name!r} has no option {option!r}.")
    for parameter in parameters.values():
        needed = parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD
        if needed and parameter.name not in (*NAMES, *options):
            raise LangAgentError(
                f"The reward {name!r} asks for {parameter.name!r}: what can be asked for is "
                f"{', '.join(NAMES)}."
            )
    return Part(name, partial(reward, **options), float(weight))


def _value(part: Part, given: Mapping[str, Any]) -> float | None:
    asked = inspect.signature(part.reward).parameters
    try:
        value = part.reward(**{name: given[name] for name in NAMES if name in asked})
        if inspect.isawaitable(value):
            value = asyncio.run(_wait(value))
        value = None if value is None else float(value)
    except LangAgentError:
        raise
    except Exception as error:
        raise NotJudgedError(
            f"The reward {part.name!r} failed at {given['text']!r}: {error!r}."
        ) from None
    if value is not None and not math.isfinite(value):
        raise NotJudgedError(f"The reward {part.name!r} came to {value} at {given['text']!r}.")
    return value


async def _wait(value: Any) -> Any:
    return await value
