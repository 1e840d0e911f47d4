"""Demonstrations: episodes on disk, one JSON object a line, to learn from by imitation.

A line holds ``env``, ``seed``, ``success``, ``return`` and ``steps``; a step holds the ``prompt``,
the admissible ``actions``, the ``action`` taken, its ``reward``, and in ``wanted`` the action to be
learned (null where there is none; with a noisy expert it is not always the one taken). A file whose
name ends in ``.gz`` is compressed: transcripts repeat themselves.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from lang_agent.action_parser import parse_action
from lang_agent.agents import BotAgent, PolicyAgent
from lang_agent.config import TextConfig
from lang_agent.errors import LangAgentError
from lang_agent.policy import LanguagePolicy
from lang_agent.rollout import NO_LABEL, Decision, Episode, Step, TextObservation, play


def write_demonstrations(path: Path, env_id: str, episodes: Iterable[Episode]) -> int:
    """Append episodes to a file of demonstrations; returns how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with _open(path, "at") as file:
        for episode in episodes:
            file.write(json.dumps(_as_data(env_id, episode), ensure_ascii=False) + "\n")
            count += 1
    return count


def _as_data(env_id: str, episode: Episode) -> dict[str, Any]:
    steps = []
    for step in episode.steps:
        actions, choice = step.observation.actions, step.decision.choice
        labelled = actions is not None and choice != NO_LABEL
        steps.append(
            {
                "prompt": step.observation.prompt,
                "actions": actions,
                "action": step.decision.action,
                "wanted": actions[choice] if labelled and actions else None,
                "reward": step.reward,
            }
        )
    return {
        "env": env_id,
        "seed": episode.seed,
        "success": episode.success,
        "return": episode.total_reward,
        "steps": steps,
    }


def read_demonstrations(path: Path) -> list[Episode]:
    """The episodes of a file; raises :class:`LangAgentError` naming file, line and reason."""
    episodes: list[Episode] = []
    try:
        with _open(path, "rt") as file:
            for number, line in enumerate(file, 1):
                try:
                    episodes.append(_from_data(json.loads(line), len(episodes)))
                except (ValueError, KeyError, TypeError) as error:
                    reason = f"{type(error).__name__}: {error}"
                    raise LangAgentError(
                        f"'{path}', line {number}, is no demonstration ({reason}): each line is "
                        "an episode as `lang-agent demos` writes it."
                    ) from None
    except (OSError, EOFError) as error:
        raise LangAgentError(f"Cannot read the demonstrations '{path}': {error}") from None
    if not any(step.decision.choice != NO_LABEL for ep in episodes for step in ep.steps):
        raise LangAgentError(f"'{path}' holds no action to learn.")
    return episodes


def _from_data(data: dict[str, Any], index: int) -> Episode:
    episode = Episode(index, int(data["seed"]), terminated=True)
    for step in data["steps"]:
        actions = None if step["actions"] is None else tuple(step["actions"])
        seen = TextObservation(str(step["prompt"]), actions)
        wanted = step["wanted"]
        choice = NO_LABEL if wanted is None or actions is None else actions.index(wanted)
        decision = Decision(str(step["action"]), choice=choice)
        episode.steps.append(Step(seen, decision, float(step["reward"]), {}))
    episode.steps[-1].info["success"] = bool(data["success"])
    return episode


def _open(path: Path, mode: str) -> IO[str]:
    if path.suffix == ".gz":
        return cast("IO[str]", gzip.open(path, mode, compresslevel=5, encoding="utf-8"))
    return path.open(mode, encoding="utf-8")


def label_own(episode: Episode) -> Episode:
    """Mark what was done as what is to be learned, where it was an action at all."""
    for step in episode.steps:
        actions = step.observation.actions or ()
        said = parse_action(step.decision.action, actions).action if actions else None
        step.decision.choice = NO_LABEL if said is None else actions.index(said)
    return episode


class Demonstrations:
    """A file's episodes as rollouts, pass after pass, each in an order of its own."""

    def __init__(self, path: Path, policy: LanguagePolicy, seed: int) -> None:
        self.seed = seed
        self._agent = PolicyAgent(policy, 1)
        self._episodes = read_demonstrations(path)

    def after(self, episodes: int, min_steps: int) -> list[Episode]:
        """The episodes that follow the first ``episodes``, with at least so many steps."""
        rollout: list[Episode] = []
        steps = 0
        while steps < min_steps:
            passes, at = divmod(episodes + len(rollout), len(self._episodes))
            order = np.random.default_rng((self.seed, passes)).permutation(len(self._episodes))
            rollout.append(self._placed(self._episodes[order[at]]))
            steps += len(rollout[-1].steps)
        return rollout

    def _placed(self, episode: Episode) -> Episode:
        """The episode with its decisions in token contexts, as a learner needs them."""
        policy, steps = self._agent.policy, []
        for step in episode.steps:
            seen, old = step.observation, step.decision
            policy.check_fits(len(policy.encode_prompt(seen.prompt)), seen.actions or ("x",))
            decision = self._agent.record(0, seen, old.action, old.choice)
            steps.append(Step(seen, decision, step.reward, step.info))
        return replace(episode, steps=steps)


def demonstrate(
    env_id: str,
    text: TextConfig,
    episodes: int,
    *,
    seed: int = 0,
    noise: float = 0.0,
    workers: int = 1,
) -> Iterator[Episode]:
    """Episodes of the expert, those that succeed or not, in the order of their seeds.

    The same seeds give the same episodes however many ``workers`` there are.
    """
    parts = [range(first, min(first + PART, seed + episodes)) for first in
             range(seed, seed + episodes, PART)]  # fmt: skip
    work = partial(_play_part, env_id, text, noise)
    if workers == 1:
        for part in parts:
            yield from work(part)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for played in pool.map(work, parts):
            yield from played


PART = 50  # episodes that a worker plays before it reports


def _play_part(env_id: str, text: TextConfig, noise: float, seeds: Sequence[int]) -> list[Episode]:
    generator = torch.Generator().manual_seed(seeds[0])
    played = play(BotAgent(noise, generator), [text.make(env_id)], seeds)
    return sorted(played, key=lambda episode: episode.index)
