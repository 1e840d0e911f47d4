"""Which missions of BabyAI's language an episode has fulfilled, whatever its mission was."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium
from minigrid.core.actions import Actions
from minigrid.core.world_object import Door, WorldObj

from lang_agent.language_env import Achieved
from lang_agent.text_env.world import GoalDetector


def goal_detector(env: gymnasium.Env) -> GoalDetector:
    """Watches the episode that ``env`` has just begun: going to things, picking them up, putting
    them next to each other, opening doors, going to a thing with another one picked up before, and
    opening a door with its key picked up before.

    What it tells, BabyAI's verifier would reward. The verifier would reward more: going to where a
    thing was that was taken away, or going on after what was picked up was dropped again, which one
    does not see; and putting a thing next to what it lay beside when it was picked up, which would
    teach to pick up and drop.
    """
    return BabyAIGoals(env.unwrapped)


class BabyAIGoals:
    """The state of :func:`goal_detector`: what is carried since when, and what was in front."""

    def __init__(self, env: Any) -> None:
        self.env = env
        things = [cell for cell in env.grid.grid if cell and (cell.can_pickup() or _door(cell))]
        self._alike = Counter(map(_kind, things))
        self._doors = sum(map(_door, things))
        self._front: WorldObj | None = None
        self._carried, self._since = env.carrying, 0
        self._was_beside: set[str] = set()  # what is carried, when it was picked up
        self._step = -1

    def __call__(self, action: Any) -> list[Achieved]:
        """What the step just taken has fulfilled."""
        self._step += 1
        now, found = self._step, []
        before, self._carried = self._carried, self.env.carrying
        met, self._front = self._front, self._in_front()
        thing = self._front
        if self._carried is not None and before is None:
            name = self._name(self._carried)
            found.append(Achieved("pickup", f"pick up {name}", (now,)))
            self._since, self._was_beside = now, self._names_beside()
        elif before is not None and self._carried is None:
            name = self._name(before)
            for other in self._names_beside() - self._was_beside - {name}:
                mission = f"put {name} next to {other}"
                found.append(Achieved("putnext", mission, (self._since, now)))
        elif action == Actions.toggle and isinstance(thing, Door) and thing.is_open:
            has_key = before is not None and _kind(before) == (thing.color, "key")
            steps = (self._since, now) if has_key else (now,)
            found.append(Achieved("open", f"open {self._name(thing)}", steps))
            the = "the" if self._doors == 1 else "a"
            found.append(Achieved("open", f"open {the} door", steps))
            if has_key:
                first, name = self._name(before), self._name(thing)
                found.append(Achieved("unlock", f"pick up {first}, then open {name}", steps))
                found.append(Achieved("unlock", f"open {name} after you pick up {first}", steps))
        elif thing is not None and thing is not met:
            name = self._name(thing)
            found.append(Achieved("goto", f"go to {name}", (now,)))
            if before is not None and self._name(before) != name:
                first, steps = self._name(before), (self._since, now)
                found.append(Achieved("sequence", f"pick up {first}, then go to {name}", steps))
                found.append(Achieved("sequence", f"go to {name} after you pick up {first}", steps))
        paid = self.env._reward()  # less the later: what success at this step brings
        return sorted((replace(one, reward=paid) for one in found), key=lambda one: one.mission)

    def _in_front(self) -> WorldObj | None:
        cell = self.env.grid.get(*self.env.front_pos)
        return cell if cell and _kind(cell) in self._alike else None

    def _names_beside(self) -> set[str]:
        """What lies next to the place in front."""
        x, y = self.env.front_pos
        cells = [self.env.grid.get(x + dx, y + dy) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
        return {self._name(cell) for cell in cells if cell and _kind(cell) in self._alike}

    def _name(self, thing: WorldObj) -> str:
        """As a mission says it: "a" where there were several at the start."""
        return f"{'a' if self._alike[_kind(thing)] > 1 else 'the'} {thing.color} {thing.type}"


def _kind(thing: WorldObj) -> tuple[str, str]:
    return thing.color, thing.type


def _door(thing: WorldObj) -> bool:
    return isinstance(thing, Door)
