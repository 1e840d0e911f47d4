"""BabyAI's bot as the expert, in the world's own words and in others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
from minigrid.core.world_object import Door, WorldObj
from minigrid.envs.babyai.core.verifier import OpenInstr
from minigrid.utils.baby_ai_bot import (
    BabyAIBot,
    DisappearedBoxError,
    DropSubgoal,
    ExploreSubgoal,
    GoNextToSubgoal,
    PickupSubgoal,
    Subgoal,
)

from lang_agent.errors import LangAgentError
from lang_agent.language_env import ExpertLostError
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert

MOST_SUBGOALS = 100  # added in one step; where it comes to an action it is ten at most


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    """The bot for the episode that ``env`` has just begun. It knows no more than the words tell:
    where a key goes by another name, it finds out what opens a door by trying."""
    task = getattr(env.unwrapped, "instrs", None)
    if task is None:
        raise LangAgentError("The bot plays BabyAI levels only: this one has no instructions.")
    hidden = isinstance(task, OpenInstr) and "key" in wording.words
    bot = TryingBot(env, task) if hidden else BabyAIBot(env)
    bot.stack = plan = Plan(bot.stack)
    return Replanner(bot, plan)


class Plan(list[Subgoal]):
    """The bot's stack of subgoals, which ends a step's planning that would go on for ever.

    Where it knows of no key to a door but what that door may hide, the bot plans to look behind the
    door, and to find the key before, and so on, without an action: in the worlds of Unlock and
    GoToImpUnlock whose key lies behind its own door, and in most of UnlockToUnlock's.
    """

    added = 0  # in this step

    def append(self, subgoal: Subgoal) -> None:
        self.added += 1
        if self.added > MOST_SUBGOALS:
            raise ExpertLostError("The bot would look for a key behind the door that it opens.")
        super().append(subgoal)


@dataclass(frozen=True)
class Replanner:
    """Asks the bot at every step."""

    bot: BabyAIBot
    plan: Plan

    def __call__(self, last_action: Any) -> Any:
        self.plan.added = 0
        try:
            return self.bot.replan(last_action)
        except (DisappearedBoxError, AssertionError) as error:  # what it looks for is gone
            raise ExpertLostError(f"The bot does not know what to do any more: {error}") from None


class TryingBot(BabyAIBot):
    """Opens a door, not knowing what a key is called: of the things in the door's colour it tries
    one kind after another."""

    def __init__(self, env: gymnasium.Env, task: OpenInstr) -> None:
        super().__init__(env)
        self.failed: set[tuple[str, str]] = set()  # kinds and colours that did not open a door
        self.stack = [OpenByTrying(self, task.desc)]

    def replan(self, action_taken: Any = None) -> Any:
        if action_taken == self.mission.unwrapped.actions.toggle and self.prev_carrying:
            door = self.prev_fwd_cell
            if isinstance(door, Door) and door.is_locked:
                self.failed.add((self.prev_carrying.type, self.prev_carrying.color))
        try:
            return super().replan(action_taken)
        except AssertionError:  # a plan that what was really done has overtaken
            del self.stack[1:]
            return super().replan(None)


class OpenByTrying(Subgoal):
    """What comes next, by what is carried and what was seen."""

    bot: TryingBot

    def replan_before_action(self) -> Any:
        bot = self.bot
        door, _ = bot._find_obj_pos(self.datum)
        if door is None:
            bot.stack.append(ExploreSubgoal(bot))
        elif not door.is_locked or (self.carrying and self._fits(self.carrying, door)):
            if self.fwd_cell is door:
                return self.actions.toggle
            bot.stack.append(GoNextToSubgoal(bot, door))
        elif self.carrying:
            return self._put_down()
        else:
            self._fetch(door)
        return None

    def _put_down(self) -> Any:
        """Here, or to the side where there is room: one sees why, unlike the bot's own choices."""
        bot, grid = self.bot, self.bot.mission.unwrapped.grid
        if self.fwd_cell is None:
            return self.actions.drop
        for turn, side in (
            (self.actions.right, self.right_vec),
            (self.actions.left, -self.right_vec),
        ):
            if grid.get(*(self.pos + side)) is None:
                return turn
        bot.stack += [DropSubgoal(bot), GoNextToSubgoal(bot, bot._find_drop_pos())]
        return None

    def _fits(self, thing: WorldObj, door: WorldObj) -> bool:
        return thing.color == door.color and (thing.type, thing.color) not in self.bot.failed

    def _fetch(self, door: WorldObj) -> None:
        """The nearest thing seen that may be the key."""
        bot = self.bot
        _, where, _ = bot._shortest_path(
            lambda at, cell: (
                bot.vis_mask[at] and cell and cell.can_pickup() and self._fits(cell, door)
            ),
            try_with_blockers=True,
        )
        if where is None:
            bot.stack.append(ExploreSubgoal(bot))
        else:
            # By its place: that of a thing once put down is an array, which the bot cannot compare.
            bot.stack += [PickupSubgoal(bot), GoNextToSubgoal(bot, where)]
