"""Demonstrations: episodes on disk, one JSON object a line, to learn from by imitation.

A line holds ``env``, ``seed``, ``success``, ``return`` and ``steps``; a step holds the ``prompt``,
the admissible ``actions``, the ``action`` taken, its ``reward``, and in ``wanted`` the action to be
learned (null where there is none; with a noisy expert it is not always the one taken). A file whose
name ends in ``.gz`` is compressed: transcripts repeat themselves.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from lang_agent.episode import Decision, Episode, Step, TextObservation
from lang_agent.errors import LangAgentError, shown
from lang_agent.files import json_lines, whole, writing
from lang_agent.models.context import traces
from lang_agent.models.policy import LanguagePolicy
from lang_agent.seeding import EVALUATION_SEED, derive
from lang_agent.stepping import as_reward


def write_demonstrations(path: Path, env_id: str, episodes: Iterable[Episode]) -> int:
    """Append episodes to a file of demonstrations, all or none of them; returns how many.

    Raises :class:`LangAgentError` for a seed of evaluation, which nothing may be learned from.
    """
    count = 0
    with whole(path) as beside:
        with writing(path):
            if path.is_file():
                shutil.copyfile(path, beside)
            file = _open(beside, "at", packed=path.suffix == ".gz")
        try:
            for episode in episodes:
                refuse_evaluation_seeds([episode.seed])
                line = json.dumps(as_data(env_id, episode), ensure_ascii=False)
                with writing(path):
                    file.write(line + "\n")
                count += 1
        finally:
            with writing(path):
                file.close()
    return count


def refuse_evaluation_seeds(seeds: Sequence[int]) -> None:
    """Raise :class:`LangAgentError` for seeds of evaluation, of which nothing may be learned."""
    if max(seeds, default=0) >= EVALUATION_SEED:
        raise LangAgentError(
            f"Seed {max(seeds)} is kept for evaluation, and demonstrations are learned from: use "
            f"seeds below {EVALUATION_SEED}."
        )


def as_data(env_id: str, episode: Episode) -> dict[str, Any]:
    steps = []
    for step in episode.steps:
        actions, wanted = step.observation.actions, step.observation.expert
        steps.append(
            {
                "prompt": step.observation.prompt,
                "actions": actions,
                "action": step.decision.action,
                "wanted": wanted if wanted in (actions or ()) else None,
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
    """The episodes of a file that there is something to learn from; raises :class:`LangAgentError`
    naming file, line and reason."""
    episodes = [episode for _, episode in read_lines(path)]
    if all(step.observation.expert is None for episode in episodes for step in episode.steps):
        raise LangAgentError(f"'{path}' holds no action to learn.")
    return episodes


def read_lines(path: Path) -> list[tuple[str, Episode]]:
    """The environments' ids and episodes of a file; raises as :func:`read_demonstrations`."""
    episodes: list[tuple[str, Episode]] = []
    try:
        with _open(path, "rt", packed=path.suffix == ".gz") as file:
            for number, data, reason in json_lines(file):
                try:
                    if not reason:
                        one = from_data(data, len(episodes))
                        episodes.append((str(data.get("env", "")), one))
                except (ValueError, KeyError, TypeError, OverflowError) as error:
                    reason = f"{type(error).__name__}: {error}"
                if reason:
                    raise LangAgentError(
                        f"'{path}', line {number}, is no demonstration ({reason}): each line is "
                        "an episode as `lang-agent demos` writes it."
                    )
    except LangAgentError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:  # ValueError: a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise LangAgentError(f"Cannot read the demonstrations '{path}': {reason}.") from None
    return episodes


def from_data(data: dict[str, Any], index: int) -> Episode:
    episode = Episode(index, int(data["seed"]), terminated=True)
    for step in data["steps"]:
        actions = None if step["actions"] is None else tuple(map(str, step["actions"]))
        wanted = step["wanted"]
        seen = TextObservation(str(step["prompt"]), actions, expert=wanted)
        if wanted is not None and wanted not in (actions or ()):
            raise ValueError(f"the action wanted, {shown(wanted)}, is none of the admissible ones")
        decision = Decision(str(step["action"]))
        episode.steps.append(Step(seen, decision, as_reward(step["reward"]), {}))
    if not episode.steps:
        raise ValueError("it has no steps")
    episode.steps[-1].info["success"] = bool(data["success"])
    return episode


def _open(path: Path, mode: str, *, packed: bool) -> IO[str]:
    encoding = "utf-8-sig" if mode == "rt" else "utf-8"
    if packed:
        return cast("IO[str]", gzip.open(path, mode, compresslevel=5, encoding=encoding))
    return cast("IO[str]", path.open(mode, encoding=encoding))


class Demonstrations:
    """A file's episodes as rollouts, pass after pass, each in an order of its own."""

    def __init__(self, path: Path, policy: LanguagePolicy, seed: int) -> None:
        self.seed = seed
        self._policy = policy
        self._episodes = read_demonstrations(path)

    def after(self, episodes: int, min_steps: int) -> list[Episode]:
        """The episodes that follow the first ``episodes``, with at least so many steps."""
        rollout: list[Episode] = []
        steps = 0
        while steps < min_steps:
            passes, at = divmod(episodes + len(rollout), len(self._episodes))
            order = np.random.default_rng(derive(self.seed, "demonstrations", passes)).permutation(
                len(self._episodes)
            )
            rollout.append(self._placed(self._episodes[order[at]]))
            steps += len(rollout[-1].steps)
        return rollout

    def _placed(self, episode: Episode) -> Episode:
        """The episode with its decisions in token contexts, as a learner needs them."""
        seen = [step.observation for step in episode.steps]
        for one in seen:
            tokens = len(self._policy.encode_prompt(one.prompt))
            self._policy.check_fits(tokens, one.actions or ("x",))
        said = [step.decision.action for step in episode.steps]
        placed = traces(self._policy.codec, zip((one.prompt for one in seen), said, strict=True))
        steps = [
            replace(step, decision=replace(step.decision, tokens=trace))
            for step, trace in zip(episode.steps, placed, strict=True)
        ]
        return replace(episode, steps=steps)
