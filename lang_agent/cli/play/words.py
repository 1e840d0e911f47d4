"""What is said of an episode while it is played, in every form."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from typing import Any

import gymnasium

from lang_agent.episode import Decision, Episode
from lang_agent.errors import shown
from lang_agent.language_env import language_env
from lang_agent.text_env.action_parser import parse_action

REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of writing, with which a text can pass for another."""


def clean(text: str) -> str:
    """The text without what a terminal would obey: control characters and changes of direction."""
    return "".join(
        char
        for char in text.replace("\t", " ")
        if char == "\n" or (unicodedata.category(char) != "Cc" and char not in REORDERING)
    )


def new_words(prompt: str, before: str, said: str) -> str:
    """What a prompt says that is new: behind the one ``before`` and what was said to that, of one
    that only grows; all of any other."""
    rest = prompt[len(before) :].lstrip(" ") if prompt.startswith(before) else ""
    grows = bool(before and rest) and rest.startswith(said.strip())
    return clean(rest[len(said.strip()) :] if grows else prompt).strip("\n")


def step_limit(env: gymnasium.Env) -> int | None:
    """After how many steps the episode is cut off, where the environment tells."""
    speaking = language_env(env).playing
    world = getattr(speaking, "env", speaking)
    specs = [one.spec for one in (env, speaking, world) if one.spec is not None]
    told = [spec.max_episode_steps for spec in specs]
    told.append(getattr(world.unwrapped, "max_steps", None))
    limits = [limit for limit in told if isinstance(limit, int) and limit > 0]
    return min(limits, default=None)


def level(env: gymnasium.Env, info: dict[str, Any]) -> str:
    """The environment's name, with the task of the episode where it has several."""
    name, task = language_env(env).name.removeprefix("lang_agent/"), str(info.get("task") or "")
    return clean(f"{name} ({task})" if task and task not in name else name)


def at_step(number: int, limit: int | None) -> str:
    return f"step {number}" if limit is None else f"step {number} of {limit}"


def outcome(info: dict[str, Any], reward: float, *, told: str = "") -> str:
    """The verdict on an action, and its reward; the reason unless what was ``told`` has it."""
    verdict, reason = info.get("verdict"), clean(str(info.get("reason") or ""))
    why = f" ({reason})" if reason and reason not in told else ""
    return f"{verdict}{why}, reward {reward:.3f}" if verdict else f"reward {reward:.3f}"


def ending(episode: Episode) -> str:
    """How an episode ended."""
    if episode.success:
        return "The goal was reached"
    return "The episode is over: the goal was not reached"


def ending_counts(episode: Episode) -> str:
    cut = ", cut off" if episode.truncated else ""
    count = len(episode.steps)
    return f"{count} step{'s' * (count != 1)}{cut}, return {episode.total_reward:.3f}"


def likely(decision: Decision, actions: Sequence[str] | None, most: int = 5) -> str:
    """The most likely phrases of a decision with their probabilities, and the critic's value."""
    parts = []
    if actions and len(decision.probabilities) == len(actions):
        weighed = sorted(zip(decision.probabilities, actions, strict=True), key=lambda one: -one[0])
        parts = [f"{clean(phrase)} {probability:.2f}" for probability, phrase in weighed[:most]]
        if len(weighed) > most:
            parts.append("...")
    if decision.tokens is not None:
        parts.append(f"value {decision.tokens.value:.3f}")
    return ", ".join(parts)


def listed(actions: Sequence[str], *, numbered: bool = False) -> str:
    names = [clean(action) for action in actions]
    return ", ".join(
        f"{number} {name}" if numbered and number < 10 else name
        for number, name in enumerate(names, 1)
    )


def meant(typed: str, actions: Sequence[str] | None) -> str | None:
    """What a typed line says to the world: itself, or the phrase of its number; None where it is no
    admissible phrase."""
    if actions is None:
        return typed
    number = typed.strip()
    if number not in actions and number.isdecimal() and 1 <= int(number) <= len(actions):
        return actions[int(number) - 1]
    return typed if actions and parse_action(typed, actions).action is not None else None


def misread(typed: str, actions: Sequence[str]) -> str:
    """The sentence for a typed line that is no admissible phrase."""
    lowered = {action.casefold(): action for action in actions}
    close = difflib.get_close_matches(typed.strip().casefold(), lowered, n=1, cutoff=0.4)
    near = f" The nearest is {clean(lowered[close[0]])!r}." if close else ""
    return (
        f"{clean(shown(typed.strip(), 40))} is no phrase here and was not sent.{near} "
        f"Phrases: {listed(actions)}."
    )
