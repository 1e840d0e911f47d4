"""Experts for TextWorld's games, which go on from wherever a game stands.

In most games it is the package's own winning policy, which it keeps up to date with every command.
It has none for cooking with two hands (its setting ``drop``), and in no cooking game does it read
the recipe; so there is a cook here, who plans over the facts of the game.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

import gymnasium

from lang_agent.language_env import ExpertLostError
from lang_agent.text_env.wording import Wording
from lang_agent.text_env.world import Expert

CUTS = {"chopped": "chop", "sliced": "slice", "diced": "dice"}
APPLIANCES = {"fried": "stove", "roasted": "oven", "grilled": "BBQ"}
DIRECTIONS = ("north", "east", "south", "west")
RECIPE = "examine cookbook"


def expert(env: gymnasium.Env, wording: Wording) -> Expert:
    """The expert of the game that the environment plays."""
    world: Any = env.unwrapped

    def wanted(last_action: Any) -> str:
        state = world.state
        if any(fact.name == "cooking_location" for fact in state.facts):
            return Kitchen(state.facts).next_command(RECIPE in world.said)
        if not state.policy_commands:
            raise ExpertLostError("The game can no longer be won, or does not say how.")
        return state.policy_commands[0]

    return wanted


class Kitchen:
    """A cooking game as it stands, and what to do in it.

    Args:
        facts: the game's propositions, whose arguments have the names that commands use.
    """

    def __init__(self, facts: Iterable[Any]) -> None:
        self.all: dict[str, list[tuple[str, ...]]] = {}
        said = [(fact.name, tuple(arg.name for arg in fact.arguments)) for fact in facts]
        for name, arguments in sorted(said):  # the game's own order is that of hashes
            self.all.setdefault(name, []).append(arguments)
        self.place = {thing: place for name in ("at", "on", "in")
                      for thing, place in self._pairs(name)}  # fmt: skip
        self.held = [thing for thing, place in self._pairs("in") if place == "I"]
        self.room = self.place["P"]
        self.distance, self.first = self._ways()

    def next_command(self, has_read: bool) -> str:
        """The next command; raises :class:`ExpertLostError` where the meal cannot be made."""
        if not has_read and "cookbook" in self.place:
            return self._to_room_of("cookbook") or RECIPE
        if "meal" in self.held:
            return "eat meal"
        foods = {food: self._wanted(part) for food, part in self._pairs("base")}
        if not foods or not all(food in self.place for food in foods):
            raise ExpertLostError("An ingredient is gone.")
        for food, wanted in foods.items():
            done = [one for one in (*CUTS, *APPLIANCES, "burned") if self._is(one, food)]
            if any(one not in wanted for one in done):
                raise ExpertLostError(f"The {food} is {done[0]}, which the recipe does not want.")
        uncut = [food for food, (cut, _) in foods.items() if cut and not self._is(cut, food)]
        raw = {food: APPLIANCES[cook] for food, (_, cook) in foods.items()
               if cook and not self._is(cook, food)}  # fmt: skip
        for food in self.held:
            if food in uncut and "knife" in self.held:
                return f"{CUTS[foods[food][0]]} {food} with knife"
            if food in raw and self.place[raw[food]] == self.room:
                return f"cook {food} with {raw[food]}"
        missing = [food for food in foods if food not in self.held]
        # The knife comes first, and stays in hand until all is cut; when both hands are full, what
        # is cut already is laid down beside what is not.
        if uncut and "knife" not in self.held:
            return self._fetch(["knife"], spare=[f for f in self.held if f not in uncut] + uncut)
        if uncut:
            return self._fetch(uncut, spare=[food for food in self.held if food != "knife"])
        if missing:
            return self._fetch(missing, spare=["knife"])
        if raw:
            return self._to_room_of(min(raw.values(), key=self._steps_to)) or "look"
        (kitchen, _), *_ = self._pairs("cooking_location")
        return self._to(kitchen) or "prepare meal"

    def _pairs(self, name: str) -> list[tuple[str, str]]:
        return [(args[0], args[1]) for args in self.all.get(name, ()) if len(args) == 2]

    def _is(self, name: str, thing: str) -> bool:
        return (thing,) in self.all.get(name, ())

    def _wanted(self, part: str) -> tuple[str, str]:
        """How the recipe wants an ingredient cut and cooked; empty for not at all."""
        cut = next((cut for cut in CUTS if self._is(cut, part)), "")
        return cut, next((cook for cook in APPLIANCES if self._is(cook, part)), "")

    def _has_room(self) -> bool:
        """Whether one more thing can be carried."""
        slots = [args[0] for name in ("free", "used") for args in self.all.get(name, ())
                 if len(args) == 1]  # fmt: skip
        return not slots or any(self._is("free", slot) for slot in slots)

    def _fetch(self, things: Iterable[str], spare: Iterable[str]) -> str:
        """Towards taking the nearest of these; one of ``spare`` is laid down for it where need
        be, and what no recipe asks for sooner."""
        thing = min(things, key=self._steps_to)
        way = self._to_room_of(thing)
        if way:
            return way
        holder = self.place[thing]
        if self._is("closed", holder):
            return f"open {holder}"
        if not self._has_room():
            useless = [one for one in self.held if one != "knife" and not self._is_food(one)]
            down = next(one for one in (*useless, *spare, *self.held) if one in self.held)
            return f"drop {down}"
        return f"take {thing}" if holder == self.room else f"take {thing} from {holder}"

    def _is_food(self, thing: str) -> bool:
        return any(thing == food for food, _ in self._pairs("base"))

    # -- ways --------------------------------------------------------------------------------------

    def _room_of(self, thing: str) -> str:
        place = self.place[thing]
        return place if place in self.distance or place not in self.place else self.place[place]

    def _steps_to(self, thing: str) -> int:
        return self.distance.get(self._room_of(thing), 10**6)

    def _to_room_of(self, thing: str) -> str:
        """The first command on the way to a thing; empty where one is there."""
        return self._to(self._room_of(thing))

    def _to(self, room: str) -> str:
        if room != self.room and room not in self.first:
            raise ExpertLostError(f"There is no way to the {room}.")
        return "" if room == self.room else self.first[room]

    def _ways(self) -> tuple[dict[str, int], dict[str, str]]:
        """Of every room how many commands it is away, and the first of them."""
        doors = {(args[0], args[2]): args[1] for args in self.all.get("link", ())}
        exits: dict[str, list[tuple[str, str]]] = {}
        for direction in DIRECTIONS:
            for to, start in self._pairs(f"{direction}_of"):
                exits.setdefault(start, []).append((to, f"go {direction}"))
        distance, first = {self.room: 0}, dict[str, str]()
        waiting = [(0, self.room)]
        while waiting:
            steps, room = heapq.heappop(waiting)
            for to, command in exits.get(room, ()):
                door = doors.get((room, to), "")
                closed = self._is("closed", door)
                far = steps + 1 + closed
                if far < distance.get(to, 10**6):
                    distance[to] = far
                    first[to] = first.get(room) or (f"open {door}" if closed else command)
                    heapq.heappush(waiting, (far, to))
        return distance, first
