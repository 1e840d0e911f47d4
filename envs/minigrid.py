"""MiniGrid and BabyAI in words: renderers, action phrases, and every id of the minigrid package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import minigrid
import minigrid.envs.babyai.core.roomgrid_level as roomgrid_level
from gymnasium.envs.registration import load_env_creator, registry
from gymnasium.envs.registration import register as register_env
from minigrid.minigrid_env import MiniGridEnv

from lang_agent.errors import unknown
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import IN_WORDS, Renderer, World

from .minigrid_bot import expert
from .minigrid_bounds import bound_drawing, check_numbers
from .minigrid_goals import goal_detector
from .minigrid_maps import AbsoluteView, RememberedMap, WholeGrid
from .minigrid_records import cells, instruction
from .minigrid_renderers import IN_VIEW
from .minigrid_rooms import Rooms, RoomsInFrench
from .minigrid_symmetry import draw_symmetry
from .minigrid_view import use_fast_view

PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
DONE = 6  # the seventh action of minigrid: nothing happens, except where a level waits for it
WAITS_FOR_DONE = ("GoToDoorEnv", "GoToObjectEnv")

RENDERERS: dict[str, Renderer | type[Any]] = {
    **IN_VIEW,
    "absolute": AbsoluteView(),
    "whole": WholeGrid(),
    "remembered": RememberedMap,
    "rooms": Rooms,
    "rooms_fr": RoomsInFrench,
}


def make_world(env: gymnasium.Env) -> World:
    """The phrases, renderers and expert for one minigrid environment."""
    known = int(env.action_space.n)  # type: ignore[attr-defined]
    actions = dict(zip(PHRASES[:known], range(known), strict=False))
    waits = any(kind.__name__ in WAITS_FOR_DONE for kind in type(env.unwrapped).__mro__)
    if waits:
        actions["done"] = DONE
    noop = DONE if known > DONE and not waits else None
    babyai = isinstance(env.unwrapped, roomgrid_level.RoomGridLevel)
    return World(
        actions=actions,
        renderers=RENDERERS,
        noop=noop,
        expert=expert,
        goal_detector=goal_detector if babyai else None,
        symmetries=draw_symmetry if babyai else None,
        instruction=instruction if babyai else None,
        cells=cells,
    )


def text_env(env: gymnasium.Env, options: dict[str, Any], world: World | None = None) -> TextEnv:
    """``env`` in words, its observation computed the fast way."""
    use_fast_view(env.unwrapped)
    bound_drawing(env.unwrapped)
    return TextEnv(env, world or make_world(env), **options)


def make(env_id: str, **kwargs: Any) -> TextEnv:
    """The minigrid environment ``env_id`` in words; what is no text option goes to minigrid."""
    options = take_text_options(kwargs)
    if env_id not in registry:  # gymnasium.spec would import the module of module:Env-v0
        raise unknown("minigrid environment", env_id, minigrid_ids())
    level: Any = load_env_creator(str(registry[env_id].entry_point))
    check_numbers(level, kwargs)
    return text_env(gymnasium.make(env_id, disable_env_checker=True, **kwargs), options)


def minigrid_ids() -> Sequence[str]:
    """Every id that the minigrid package has registered and can make.

    The wheel of minigrid 3.2 lacks the pattern images of its wave-function-collapse levels, so
    that they fail at reset; they are left out wherever the images are missing.
    """
    has_patterns = (Path(minigrid.__file__).parent / "envs" / "wfc" / "patterns").is_dir()
    return [
        spec.id
        for spec in registry.values()
        if isinstance(spec.entry_point, str)
        and spec.entry_point.startswith("minigrid.")
        and (has_patterns or not spec.entry_point.startswith("minigrid.envs.wfc"))
    ]


def register() -> None:
    # Level generation prints every rejected draw; a library has no business on standard output.
    vars(roomgrid_level)["print"] = lambda *args, **kwargs: None
    IN_WORDS[MiniGridEnv] = text_env  # a user's own levels, too
    for env_id in minigrid_ids():
        register_env(env_id, entry_point=f"{__name__}:make", kwargs={"env_id": env_id})
