"""Gymnasium's Taxi in words (Dietterich 2000, arXiv cs/9905014): fetch a passenger, and bring them
to where they want to go."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register as register_env

from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World

from .toy_text import place, planner, toy_text

STANDS = ("red", "green", "yellow", "blue")
IN_TAXI = len(STANDS)
PHRASES = {
    "go south": 0,
    "go north": 1,
    "go east": 2,
    "go west": 3,
    "pick up the passenger": 4,
    "drop off the passenger": 5,
}
WALLS = ("south", "north", "east", "west")  # in the order of the actions


def render(state: int, env: Any) -> dict[str, Any]:
    """Admissible is what changes something: no driving into walls, nobody to pick up where nobody
    waits (the environment's action mask)."""
    world = env.unwrapped
    row, column, passenger, destination = world.decode(state)
    mask = world.action_mask(state)
    useful = [phrase for phrase, action in PHRASES.items() if mask[action]]
    walls = [name for name, free in zip(WALLS, mask, strict=False) if not free]
    lines = [
        f"The taxi is {place(row, column)}",
        *(f"There is a wall to the {name}" for name in walls),
        "The passenger sits in the taxi"
        if passenger == IN_TAXI
        else f"The passenger waits at the {_stand(world, passenger)}",
        f"The passenger wants to go to the {_stand(world, destination)}",
        f"You can {', '.join(useful)}",
    ]
    return {
        "mission": "take the passenger to where they want to go",
        "descriptions": lines,
        "actions": useful,
    }


def _stand(world: Any, number: int) -> str:
    return f"{STANDS[number]} stand {place(*world.locs[number])}"


WORLD = World(actions=PHRASES, renderers={"places": render}, expert=planner)


def make(**arguments: Any) -> TextEnv:
    """Taxi in words; ``is_rainy``, ``fickle_passenger``, ``max_steps``."""
    return toy_text("Taxi", WORLD, arguments)


def register() -> None:
    register_env("TextTaxi-v0", entry_point=f"{__name__}:make")
