"""Gymnasium's Blackjack in words (Sutton and Barto 2018, example 5.1): hit or stick."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.envs.registration import register as register_env
from gymnasium.envs.toy_text.blackjack import sum_hand, usable_ace

from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert, World

from .toy_text import toy_text

STICK, HIT = 0, 1
ACE = 1


def render(seen: tuple[int, int, int], env: gymnasium.Env) -> dict[str, Any]:
    """All that the environment shows: the player's sum, the dealer's card, a usable ace."""
    own, dealer, ace = map(int, seen)
    counted = ", with an ace that counts 11" if ace else ""
    card = "an ace" if dealer == ACE else f"a card of {dealer}"
    return {
        "mission": "come closer to 21 than the dealer without going over it",
        "descriptions": [f"Your cards count {own}{counted}", f"The dealer shows {card}"],
    }


def sticks(own: int, dealer: int, ace: bool) -> bool:
    """Basic strategy where there is no more than hitting and sticking, and the dealer does not
    look for a blackjack first: the best that can be done."""
    if ace:
        return own >= (19 if dealer in (ACE, 9, 10) else 18)
    if dealer in (4, 5, 6):
        return own >= 12
    return own >= (13 if dealer in (2, 3) else 17)


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    world: Any = env.unwrapped

    def act(last_action: Any) -> int:
        stick = sticks(sum_hand(world.player), world.dealer[0], bool(usable_ace(world.player)))
        return STICK if stick else HIT

    return act


WORLD = World(actions={"hit": HIT, "stick": STICK}, renderers={"cards": render}, expert=expert)


def make(**arguments: Any) -> TextEnv:
    """Blackjack in words; ``natural``, ``sab``."""
    return toy_text("Blackjack", WORLD, arguments)


def register() -> None:
    register_env("TextBlackjack-v0", entry_point=f"{__name__}:make")
