"""What a text environment must know of a world: its phrases, how it reads, when a task is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium

from lang_agent.errors import unknown
from lang_agent.language_env import Achieved
from lang_agent.text_env.wording import Wording
from lang_agent.trust import load_function

Renderer = Callable[[Any, gymnasium.Env], Mapping[str, Any]]
"""(observation, environment) -> fields: ``descriptions`` (list of lines) at least, usually
``mission``, and ``actions`` (list of phrases) where the admissible ones change with the state."""


GoalDetector = Callable[[Any], Sequence[Achieved]]
"""The environment action just taken (None: none was) -> what has been fulfilled with it."""

Expert = Callable[[Any], Any]
"""The environment action really taken last (None at the start) -> the action it would take now;
raises :class:`ExpertLostError` where it knows no more."""


IN_WORDS: dict[type[gymnasium.Env], Callable[[gymnasium.Env, dict[str, Any]], gymnasium.Env]] = {}
"""Classes of environments -> what puts an environment of them into words, given text options. A
world enters its own, so that environments that others derive from them speak too."""


def _rewarded(env: gymnasium.Env, reward: float, terminated: bool) -> bool:
    return terminated and reward > 0


@dataclass(frozen=True)
class World:
    """What a text environment must know of a world."""

    actions: Mapping[str, Any]
    """Phrase -> environment action, in the order in which prompts list them."""
    renderers: Mapping[str, Renderer]
    """By name; the first is the default."""
    noop: Any = None
    """The environment action that changes nothing but the time; None where there is none."""
    success: Callable[[gymnasium.Env, float, bool], bool] = _rewarded
    """(environment, reward, terminated) -> whether the task is done."""
    expert: Callable[[gymnasium.Env, Wording], Expert] | None = None
    """Makes an expert for the episode that the environment has just begun in these words."""
    goal_detector: Callable[[gymnasium.Env], GoalDetector] | None = None
    """Tells which goals the episode that the environment has just begun reaches."""
    instruction: Callable[[gymnasium.Env], Mapping[str, Any]] | None = None
    """What the mission is made of (:attr:`LanguageEnv.instruction`)."""
    cells: Callable[[gymnasium.Env], Mapping[str, Any]] | None = None
    """The grid as it stands (:attr:`LanguageEnv.cells`)."""


def find_renderer(renderer: str | Renderer | None, world: World) -> Renderer:
    """A renderer by name, as ``module:function``, or as it is; None is the world's default."""
    if callable(renderer):
        return renderer
    if renderer is None:
        return next(iter(world.renderers.values()))
    if renderer in world.renderers:
        return world.renderers[renderer]
    if ":" in renderer:
        return load_function(renderer)
    raise unknown("renderer", renderer, [*world.renderers, "module:function"])
