"""Several environments as one: each episode is played in one of them, drawn by weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from lang_agent.errors import LangAgentError
from lang_agent.language_env import Achieved, LanguageEnv, language_env
from lang_agent.seeding import derive
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.spaces import AnyText


class Mixture(LanguageEnv):
    """Draws one of its text environments at every reset, from the seed and the ``weights`` alone.

    The part has a stream of random numbers of its own and is then reset with the seed as it is, so
    that an episode reads as it does outside of the mixture. Without a seed, both go on from the
    last seed given.

    ``info`` has ``part``, the index of the one drawn, and ``task``, its name where the environment
    gives none.
    """

    def __init__(
        self,
        envs: Sequence[gymnasium.Env[str, str]],
        names: Sequence[str],
        weights: Sequence[float],
    ) -> None:
        self.envs, self.part_names, self.weights = list(envs), list(names), list(weights)
        self._parts = [language_env(env) for env in envs]
        self.part = 0
        self.metadata, self.render_mode = envs[0].metadata, envs[0].render_mode
        self.observation_space, self.action_space = AnyText(), AnyText(max_length=1024)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=None if seed is None else derive(seed, "part", *self.part_names))
        weights = self.weights if self.drawn_weights is None else self.drawn_weights
        share = np.asarray(weights) / np.sum(weights)
        self.part = int(self.np_random.choice(len(self.envs), p=share))
        if seed is None:
            seed = int(self.np_random.integers(2**31))
        self._hand_on()
        prompt, info = self.envs[self.part].reset(seed=seed, options=options)
        return prompt, self._named(info)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._hand_on()
        prompt, reward, terminated, truncated, info = self.envs[self.part].step(action)
        return prompt, reward, terminated, truncated, self._named(info)  # type: ignore[return-value]

    def _named(self, info: dict[str, Any]) -> dict[str, Any]:
        return {"task": self.part_names[self.part], **info, "part": self.part}

    def _hand_on(self) -> None:
        """Give the part that is played what was given to the mixture."""
        self.playing.prompt_limit, self.playing.judge = self.prompt_limit, self.judge

    @property
    def name(self) -> str:
        return self.part_names[self.part]

    @property
    def playing(self) -> LanguageEnv:
        return self.parts[self.part]

    @property
    def parts(self) -> Sequence[LanguageEnv]:
        return self._parts

    @property
    def phrases(self) -> tuple[str, ...]:
        return self.playing.phrases

    @property
    def renamed_words(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(word for part in self.parts for word in part.renamed_words))

    @property
    def judges_together(self) -> bool:
        return self.playing.judges_together

    @property
    def instruction(self) -> Mapping[str, Any]:
        return self.playing.instruction

    @property
    def cells(self) -> Mapping[str, Any] | None:
        return self.playing.cells

    def expert_action(self, last_action: str | None) -> str:
        return self.playing.expert_action(last_action)

    def watch(self, symmetries: bool = False) -> None:
        for part in self.parts:
            part.watch(symmetries)

    @property
    def achieved(self) -> Sequence[Achieved]:
        return self.playing.achieved

    def relabelled(self, mission: str, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
        return self.playing.relabelled(mission, generator)

    def render(self) -> Any:
        return self.envs[self.part].render()

    def close(self) -> None:
        for env in self.envs:
            env.close()


def make_mixture(text: TextConfig, parts: Sequence[str], **env_kwargs: Any) -> Mixture:
    """A :class:`Mixture` of parts written as ``ID [name=value ...] [weight=w]``; the arguments go
    to the world, beside those of ``text``.

    Raises :class:`LangAgentError` for a weight that is not a number above 0.
    """
    envs, weights = [], []
    for part in parts:
        if not part.strip():
            raise LangAgentError("A part of the mixture is empty: each begins with an id.")
        env_id, *arguments = part.split()
        weight = 1.0
        for argument in [argument for argument in arguments if argument.startswith("weight=")]:
            arguments.remove(argument)
            weight = _weight(argument.partition("=")[2], part)
        envs.append(text.with_args(arguments).make(env_id, **env_kwargs))
        weights.append(weight)
    return Mixture(envs, parts, weights)


def _weight(text: str, part: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise LangAgentError(f"weight={text} of '{part}' must be a number above 0.")
    return weight
