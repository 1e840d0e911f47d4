"""Playing episodes: the one loop between agents and environments, for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium


@dataclass(frozen=True)
class TextObservation:
    """What an agent acts on: the prompt, and the admissible phrases (None: free text)."""

    prompt: str
    actions: tuple[str, ...] | None
    line: bool = False
    """Of free text, whether one line is asked for."""


NO_LABEL = -1  # in place of a choice: no phrase was chosen, or none is known to be right


@dataclass
class Decision:
    """What an agent answered. Agents that do not learn fill in the action alone."""

    action: str
    context: list[int] = field(default_factory=list)  # token ids; shared by steps that extend it
    position: int = 0  # of the prompt's last token in the context
    choice: int = NO_LABEL  # index among the admissible phrases: of the action, or of the expert's
    token_ids: list[int] = field(default_factory=list)  # L, where free text was written
    log_probs: list[float] = field(default_factory=list)  # L, or one of a phrase; none if not drawn
    value: float = 0.0
    token_values: list[float] = field(default_factory=list)  # L, where tokens have credit
    reference: list[float] = field(default_factory=list)  # L log-probs of the reference policy


@dataclass
class Step:
    """One decision and what came of it."""

    observation: TextObservation
    decision: Decision
    reward: float
    info: dict[str, Any]
    token_rewards: list[float] = field(default_factory=list)
    """L, where tokens were rewarded apart; ``reward`` holds their sum."""


@dataclass
class Episode:
    """A whole episode. ``last_value`` estimates what a truncation cut off; 0 once terminated."""

    index: int  # in the order of the seeds
    seed: int
    steps: list[Step] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    last_value: float = 0.0
    judged: bool = True
    """False where a reward could not tell, so that there is nothing to learn."""

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return sum(step.reward for step in self.steps)

    @property
    def success(self) -> bool:
        return bool(self.steps) and bool(self.steps[-1].info.get("success", False))

    @property
    def invalid_actions(self) -> int:
        return sum(bool(step.info.get("invalid_action")) for step in self.steps)


class Agent(Protocol):
    """Anything that answers prompts, several at a time."""

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        """A new episode is about to begin in this slot."""

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        """One decision for each observation."""


def play(
    agent: Agent,
    envs: Sequence[gymnasium.Env[str, str]],
    seeds: Iterable[int],
    *,
    min_steps: int | None = None,
    group_size: int = 1,
    on_end: Callable[[Episode, gymnasium.Env[str, str]], None] | None = None,
) -> Iterator[Episode]:
    """Play ``group_size`` episodes of each seed, as many at once as there are environments.

    Every episode that was begun is finished and yielded, in the order of finishing. With
    ``min_steps`` no new episode begins once that many steps were taken in all, so that which
    episodes are played never depends on how they end. Where an environment has a rubric, the
    episodes of a seed are judged together, once all of them are finished. ``on_end`` is told of
    every episode while its environment still stands as it ended.
    """
    upcoming = enumerate(seed for seed in seeds for _ in range(group_size))
    begun = 0
    running: dict[int, Episode] = {}
    seen: dict[int, TextObservation] = {}
    waiting: dict[int, list[Episode]] = {}  # for the others of their group, by seed
    rubrics = [getattr(env.unwrapped, "rubric", None) for env in envs]
    take: list[Callable[[str], Any]] = [
        env.step if rubric is None else env.unwrapped.step_unjudged  # type: ignore[attr-defined]
        for env, rubric in zip(envs, rubrics, strict=True)
    ]
    steps = 0

    def begin(slot: int) -> None:
        seen.pop(slot, None)
        running.pop(slot, None)
        nonlocal begun
        if min_steps is not None and steps >= min_steps and begun % group_size == 0:
            return
        for index, seed in upcoming:
            begun += 1
            agent.begin(slot, envs[slot])
            prompt, info = envs[slot].reset(seed=seed)
            running[slot] = Episode(index, seed)
            seen[slot] = _observe(prompt, info)
            return

    def finish(slot: int) -> list[Episode]:
        """What is done now that this slot's episode is: it alone, or its group."""
        episode = running[slot]
        if on_end is not None:
            on_end(episode, envs[slot])
        begin(slot)
        rubric = rubrics[slot]
        if rubric is None:
            return [episode]
        group = waiting.setdefault(episode.seed, [])
        group.append(episode)
        if len(group) < group_size:
            return []
        rubric.judge_episodes(group)
        return waiting.pop(episode.seed)

    for slot in range(len(envs)):
        begin(slot)
    while running:
        slots = list(running)
        decisions = agent.act(slots, [seen[slot] for slot in slots])
        for slot, decision in zip(slots, decisions, strict=True):
            episode = running[slot]
            if episode.truncated:  # the decision was asked for its value alone
                episode.last_value = decision.value
                yield from finish(slot)
                continue
            prompt, reward, terminated, truncated, info = take[slot](decision.action)
            episode.steps.append(Step(seen[slot], decision, float(reward), info))
            episode.terminated = terminated
            episode.truncated = truncated and not terminated
            seen[slot] = _observe(prompt, info)
            steps += 1
            if terminated:
                yield from finish(slot)


def _observe(prompt: str, info: dict[str, Any]) -> TextObservation:
    actions = info.get("actions")
    phrases = None if actions is None else tuple(actions)
    return TextObservation(prompt, phrases, bool(info.get("line", False)))
