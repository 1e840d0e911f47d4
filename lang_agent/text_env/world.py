"""What a text environment must know of a world: its phrases, how it reads, when a task is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from lang_agent.errors import LangAgentError, unknown
from lang_agent.extensions import check_takes
from lang_agent.language_env import Achieved
from lang_agent.text_env.wording import Wording
from lang_agent.trust import load_function

Renderer = Callable[[Any, gymnasium.Env], Mapping[str, Any]]
"""(observation, environment) -> fields: ``descriptions`` (list of lines) at least, usually
``mission``; ``actions`` (list of phrases) where the admissible ones change with the state, unless
``info["action_mask"]`` tells them (one entry for each number of a Discrete action space); and
``things``, what each line tells of, for templates that take it apart (:data:`NOTHING`). One that
remembers something of an episode is a class: every environment makes its own, and its method
``begin(environment, wording)``, where it has one, is called whenever an episode has begun, with the
words that stand for the world's own in it. It may bring an
``expert`` that knows what it tells (:data:`Expert`), in place of the world's."""

NOTHING: Mapping[str, Any] = {"name": "", "place": "", "state": "", "said": "", "brief": ""}
"""What templates find in every thing: its name, its place and its state in words, the line without
its verb (``said``) and also without the article (``brief``). A renderer may say more of it."""


Commands = Callable[[gymnasium.Env], Sequence[str] | None]
"""The environment that has just begun an episode -> all phrases of this episode, in any state, or
None where any text is an action. A phrase or text is the environment's action as it is."""


@dataclass(frozen=True)
class Symmetry:
    """A way to see a world in which it is a world of the same kind, such as in a mirror: what was
    done for a goal is, seen so, right for the goal seen so."""

    observation: Callable[[Any], Any]
    """The environment's observation -> how it looks then."""
    mission: Callable[[str], str]
    """A mission in the world's own words -> what it says then."""
    action: Callable[[Any], Any]
    """An environment action -> which one it is then."""


Symmetries = Callable[[str, np.random.Generator], Symmetry]
"""(mission, generator) -> one that is drawn, in which the mission is one that the world gives."""

GoalDetector = Callable[[Any], Sequence[Achieved]]
"""The environment action just taken (None: none was) -> what has been fulfilled with it."""

Expert = Callable[[Any], Any]
"""The environment action really taken last (None at the start) -> the action it would take now;
raises :class:`ExpertLostError` where it knows no more."""


IN_WORDS: dict[type[gymnasium.Env], Callable[[gymnasium.Env, dict[str, Any]], gymnasium.Env]] = {}
"""Classes of environments -> what puts an environment of them into words, given text options. A
world enters its own, so that environments that others derive from them speak too."""


def rewarded_at_end(env: gymnasium.Env, reward: float, terminated: bool) -> bool:
    """Whether an episode succeeds, where its world does not say otherwise."""
    return terminated and reward > 0


@dataclass(frozen=True)
class World:
    """What a text environment must know of a world."""

    actions: Mapping[str, Any] | Commands
    """Phrase -> environment action, in the order in which prompts list them; or a function that
    tells the phrases of an episode, where they differ from one to another. The renderer then says
    which of them are admissible."""
    renderers: Mapping[str, Renderer | type[Any]]
    """By name; the first is the default. Of a class every environment makes its own."""
    noop: Any = None
    """The environment action that changes nothing but the time; None where there is none."""
    success: Callable[[gymnasium.Env, float, bool], bool] = rewarded_at_end
    """(environment, reward, terminated) -> whether the task is done. It is asked after every step;
    the last one of an episode counts."""
    expert: Callable[[gymnasium.Env, Wording], Expert] | None = None
    """Makes an expert for the episode that the environment has just begun in these words."""
    goal_detector: Callable[[gymnasium.Env], GoalDetector] | None = None
    """Tells which goals the episode that the environment has just begun reaches."""
    symmetries: Symmetries | None = None
    """Draws a way to see the world otherwise, for what is told in hindsight. It is asked for where
    the renderer says that it needs nothing but the observation (``observation_alone = True``)."""
    instruction: Callable[[gymnasium.Env], Mapping[str, Any]] | None = None
    """What the mission is made of (:attr:`LanguageEnv.instruction`)."""
    cells: Callable[[gymnasium.Env], Mapping[str, Any]] | None = None
    """The grid as it stands (:attr:`LanguageEnv.cells`)."""

    def __post_init__(self) -> None:
        _check_success(self.success)


SUCCESS = ("environment", "reward", "terminated")
PLACES = {"env": 0, "environment": 0, "reward": 1, "terminated": 2, "done": 2}
NOT_GIVEN = {"action", "info", "obs", "observation", "truncated"}


def _check_success(success: Callable[..., Any]) -> None:
    """Raise :class:`LangAgentError` for a function that takes other arguments, or these in another
    order: it would never be true, or always."""
    check_takes(success, "World(success=...)", SUCCESS)
    try:
        names = list(inspect.signature(success).parameters)
    except (TypeError, ValueError):
        return
    for at, name in enumerate(names[: len(SUCCESS)]):
        if name in NOT_GIVEN or PLACES.get(name, at) != at:
            raise LangAgentError(
                f"World(success=...) is called with ({', '.join(SUCCESS)}), and takes "
                f"({', '.join(names)}): {name!r} would be the {SUCCESS[at]}."
            )


def find_renderer(
    renderer: str | Renderer | type[Any] | None, world: World, language: str = ""
) -> Renderer:
    """A renderer by name, as ``module:function``, or as it is; None is the world's default. Where
    the world has one of that name and ``language`` ("babyai_fr"), it is that."""
    renderer = next(iter(world.renderers)) if renderer is None else renderer
    if f"{renderer}_{language}" in world.renderers:
        renderer = f"{renderer}_{language}"
    found: Any = renderer
    if isinstance(renderer, str) and renderer in world.renderers:
        found = world.renderers[renderer]
    elif isinstance(renderer, str) and ":" in renderer:
        found = load_function(renderer)
    elif isinstance(renderer, str):
        raise unknown("renderer", renderer, [*world.renderers, "module:function"])
    made = found() if isinstance(found, type) else found
    name = renderer if isinstance(renderer, str) else getattr(made, "__qualname__", "of this world")
    check_takes(made, f"The renderer {name}", ("observation", "env"))
    return made
