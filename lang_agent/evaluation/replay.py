"""Playing stored actions again: the same prompts and rewards, or the first step that differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from lang_agent.episode import Agent, Decision, TextObservation, TokenTrace
from lang_agent.errors import LangAgentError, shown
from lang_agent.evaluation.records import Results
from lang_agent.evaluation.tasks import Task
from lang_agent.evaluation.trajectories import prompts, read_trajectories
from lang_agent.language_env import PromptLimit, language_env

NEAR = 1e-9  # what rewards may differ by


@dataclass(frozen=True)
class Replayed:
    """An episode that was played again."""

    trajectory: Mapping[str, Any]
    prompts: Sequence[str]
    """As stored."""
    step: int | None = None
    """The first step that differs; None where all is the same."""
    difference: str = ""


class StoredAgent(Agent):
    """Decides as in a stored episode, with the probabilities and values of then: to show it."""

    slots = 1

    def __init__(self, trajectory: Mapping[str, Any]) -> None:
        self._steps = trajectory["steps"]
        self._at = 0

    def begin(self, slot: int, seed: int) -> None:
        self._at = 0

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        if self._at == len(self._steps):
            raise LangAgentError(
                f"The episode goes on after the {self._at} steps that were stored: the world is "
                "not what it was."
            )
        step = self._steps[self._at]
        self._at += 1
        value = step.get("value")
        tokens = None if value is None else TokenTrace([], 0, value=value)
        return [Decision(step["action"], tokens=tokens, probabilities=step["probabilities"])]


def replay(
    results: Results,
    make_env: Callable[[Task], gymnasium.Env[str, str]],
    prompt_limit: PromptLimit | None = None,
    only: int | None = None,
) -> Iterator[Replayed]:
    """Play the stored episodes again, in their order.

    Args:
        make_env: an environment of a task in the words of the evaluation.
        prompt_limit: that of the agent who played.
        only: this episode alone, counted from 0.

    Raises:
        LangAgentError: results without trajectories, or without this one.
    """
    stored = read_trajectories(results.folder)
    if not stored:
        raise LangAgentError(
            f"'{results.folder}' has no steps to play again: evaluate with --trajectories."
        )
    if only is not None and only >= len(stored):
        raise LangAgentError(
            f"There is no episode {only}: '{results.folder}' has {len(stored)}, from 0."
        )
    envs: dict[str, gymnasium.Env[str, str]] = {}
    tasks = {task.name: task for task in results.spec.tasks}
    try:
        for trajectory in stored if only is None else stored[only : only + 1]:
            name, seed = trajectory["task"], trajectory["seed"]
            texts = prompts(trajectory)
            actions = [step["action"] for step in trajectory["steps"]]
            rewards = [step["reward"] for step in trajectory["steps"]]
            if name not in tasks:
                raise LangAgentError(f"'{results.folder}' has no task {shown(name)}.")
            if name not in envs:
                envs[name] = make_env(tasks[name])
            language_env(envs[name]).prompt_limit = prompt_limit
            step, difference = _compare(envs[name], seed, texts, actions, rewards)
            yield Replayed(trajectory, texts, step, difference)
    finally:
        for env in envs.values():
            env.close()


def _compare(
    env: gymnasium.Env[str, str],
    seed: int,
    texts: Sequence[str],
    actions: Sequence[str],
    rewards: Sequence[float],
) -> tuple[int | None, str]:
    prompt, _ = env.reset(seed=seed)
    over = False
    for at, (text, action, reward) in enumerate(zip(texts, actions, rewards, strict=True)):
        if over:
            return at, "the episode ends before it"
        if prompt != text:
            return at, f"the prompt {_first_change(text, prompt)}"
        prompt, paid, terminated, truncated, _ = env.step(action)
        if abs(float(paid) - reward) > NEAR:
            return at, f"the reward is {float(paid):g} and was {reward:g}"
        over = terminated or truncated
    return (None, "") if over else (len(texts) - 1, "the episode goes on after it")


def _first_change(before: str, now: str) -> str:
    """Where two texts first differ, each with a few words around it."""
    at = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), None)
    at = min(len(before), len(now)) if at is None else at
    begin = max(at - 20, 0)
    return f"reads {now[begin : at + 40]!r} and read {before[begin : at + 40]!r}"
