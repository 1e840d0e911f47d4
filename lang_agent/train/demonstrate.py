"""Episodes to learn from: of the expert, in one process or several, or of anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context

from lang_agent.agents.expert import ExpertAgent
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.rollout import play
from lang_agent.stepping import EnvErrors
from lang_agent.text_env.action_parser import parse_action
from lang_agent.text_env.config import TextConfig


def demonstrate(
    env_id: str,
    text: TextConfig,
    episodes: int,
    *,
    seed: int = 0,
    noise: float = 0.0,
    workers: int = 1,
    on_env_error: str = "stop",
) -> Iterator[Episode]:
    """Episodes of the expert, those that succeed or not, in the order of their seeds.

    The same seeds give the same episodes however many ``workers`` there are. What becomes of those
    whose environment raises is said by ``on_env_error`` (:class:`lang_agent.stepping.EnvErrors`).
    """
    parts = [range(first, min(first + PART, seed + episodes)) for first in
             range(seed, seed + episodes, PART)]  # fmt: skip
    work = partial(_play_part, env_id, text, noise, on_env_error)
    if workers == 1:
        for part in parts:
            yield from work(part)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for played in pool.map(work, parts):
                yield from played
        except BrokenProcessPool:
            raise LangAgentError(
                f"One of the {workers} worker processes was killed, perhaps for want of memory: "
                "use fewer."
            ) from None


PART = 50  # episodes that a worker plays before it reports


def _play_part(
    env_id: str, text: TextConfig, noise: float, on_env_error: str, seeds: Sequence[int]
) -> list[Episode]:
    errors = EnvErrors(on_env_error)
    played = play(ExpertAgent(noise), [text.make(env_id)], seeds, errors=errors)
    return sorted(played, key=lambda episode: episode.index)


def label_own(episode: Episode) -> Episode:
    """The episode with what was done as what is to be learned, where it was an action at all."""
    steps = []
    for step in episode.steps:
        actions = step.observation.actions
        said = parse_action(step.decision.action, actions).action if actions else None
        steps.append(replace(step, observation=replace(step.observation, expert=said)))
    return replace(episode, steps=steps)
