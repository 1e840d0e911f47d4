"""PutNext: BabyAI's level of putting things next to each other over several rooms.

minigrid has the level in one and two rooms alone. Here it is as the BabyAI papers play it
(Chevalier-Boisvert et al. 2019, arXiv 1810.08272): nine rooms that are all connected, eighteen
things, which need not be unique, all within reach, and two of them drawn for the mission.
"""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import register as register_env
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import ObjDesc, PutNextInstr

from lang_agent.text_env.env import TextEnv, take_text_options

from .minigrid import text_env
from .minigrid_bounds import check_numbers

THINGS = 18


class PutNextRooms(RoomGridLevel):
    """Put one of eighteen things next to another, over nine rooms."""

    def gen_mission(self) -> None:
        self.place_agent()
        self.connect_all()
        things = self.add_distractors(num_distractors=THINGS, all_unique=False)
        self.check_objs_reachable()
        first, second = self._rand_subset(things, 2)
        self.instrs = PutNextInstr(
            ObjDesc(first.type, first.color), ObjDesc(second.type, second.color)
        )


def make(**kwargs: Any) -> TextEnv:
    """The level in words; what is no text option goes to :class:`PutNextRooms`."""
    options = take_text_options(kwargs)
    check_numbers(PutNextRooms, kwargs)
    return text_env(PutNextRooms(**kwargs), options)


def register() -> None:
    register_env("BabyAI-PutNext-v0", entry_point=f"{__name__}:make")
