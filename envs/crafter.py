"""Crafter in words (Hafner 2021, arXiv 2109.06780): the survival world, as BALROG tells it.

The sentences are those of BALROG (Paglieri et al. 2024, arXiv 2411.13543), which has them from
SmartPlay (Wu et al. 2023, arXiv 2310.01557). A seed is the package's own world of that seed, after
one Noop. Unlike there, a seed always gives the same episode: the package keeps the creatures of a
region in a set, so that which one goes away depends on where it lies in memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import register as register_env

from lang_agent.errors import LangAgentError
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import World

PHRASES = (
    "Noop", "Move West", "Move East", "Move North", "Move South", "Do", "Sleep", "Place Stone",
    "Place Table", "Place Furnace", "Place Plant", "Make Wood Pickaxe", "Make Stone Pickaxe",
    "Make Iron Pickaxe", "Make Wood Sword", "Make Stone Sword", "Make Iron Sword",
)  # fmt: skip
NOOP = 0
LIMIT = 10_000  # the package's own
ACROSS, DOWN = 4, 3  # so many cells are seen to each side of the player
VITALS = ("health", "food", "drink", "energy")
PICTURE = (450, 450)


class Crafter(gymnasium.Env):
    """The package's environment behind Gymnasium's interface, with what it tells in ``info``.

    ``info`` holds ``status`` (how the player fares and what it carries, in words),
    ``achievements`` (a set of names) and ``progression`` (their share of all 22).
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(self, max_steps: int = LIMIT, render_mode: str | None = None) -> None:
        try:
            import crafter
        except ImportError:
            raise LangAgentError(
                "Crafter is played by the package crafter: pip install 'lang_agent[crafter]'."
            ) from None
        if type(max_steps) is not int or max_steps < 1:
            raise LangAgentError(f"max_steps={max_steps!r} must be a whole number of at least 1.")
        self.max_steps, self.render_mode = max_steps, render_mode
        # The picture is part of the world: at night it draws from the world's generator.
        self.game = crafter.Env(area=(64, 64), view=(9, 9), size=(32, 32), length=None, seed=0)

        _keep_order(self.game._world)
        self.names = _names(self.game._sem_view)
        self.action_space = gymnasium.spaces.Discrete(len(PHRASES))
        self.observation_space = gymnasium.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        self.semantic = np.zeros((0, 0), np.uint8)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        world = int(self.np_random.integers(2**31)) if seed is None else seed
        self.game._seed, self.game._episode = world, 0
        self.game.reset()
        seen, *_, info = self.step(NOOP)
        self._steps = 0
        return seen, info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        seen, reward, dead, told = self.game.step(int(action))
        self.semantic = told["semantic"]
        self._steps += 1
        unlocked = {name for name, count in told["achievements"].items() if count}
        info = {
            "status": status(told["inventory"]),
            "achievements": unlocked,
            "progression": len(unlocked) / len(told["achievements"]),
        }
        return seen, float(reward), bool(dead), self._steps >= self.max_steps, info

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            return None
        random = self.game._world.random
        before = random.get_state()
        picture = self.game.render(PICTURE)
        random.set_state(before)  # a picture to look at changes nothing
        return picture


class _Region(dict):
    """The creatures of a region, in an order that hangs on nothing but when they came into the
    world."""

    def __init__(self, numbers: Iterator[int]) -> None:
        super().__init__()
        self._numbers = numbers

    def add(self, creature: Any) -> None:
        if not hasattr(creature, "number"):
            creature.number = next(self._numbers)
        self[creature] = None

    def remove(self, creature: Any) -> None:
        del self[creature]

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self.keys(), key=_rank))


def _rank(creature: Any) -> tuple[int, int]:
    """Any order would do that is the same in every run. This one has no meaning: it was searched
    for, among shuffles of this form, as one in which the recorded episodes come out."""
    return (66 * creature.number**2 + 99) % 101, creature.number


def _keep_order(world: Any) -> None:
    """In place of the package's sets, whose order is that of addresses in memory: one and the same
    seed would give other episodes from run to run."""
    reset = world.reset

    def reset_in_order(seed: int | None = None) -> None:
        reset(seed=seed)
        world._chunks = defaultdict(partial(_Region, count()))

    world.reset = reset_in_order


def _names(view: Any) -> dict[int, str]:
    """What the numbers of the package's map of kinds mean."""
    kinds = {number: kind.__name__.lower() for kind, number in view._obj_ids.items()}
    return {**{number: str(name) for name, number in view._mat_ids.items()}, **kinds}


# -- in words --------------------------------------------------------------------------------------


def status(inventory: dict[str, int]) -> str:
    """How the player fares, and what it carries."""
    carried = [f"- {name}: {n}" for name, n in inventory.items() if n and name not in VITALS]
    held = ["Your inventory:", *carried] if carried else ["You have nothing in your inventory."]
    fares = [f"- {name}: {inventory[name]}/9" for name in VITALS]
    return "\n".join(["Your status:", *fares, "", *held])


def render(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """What is around the player: of every kind of thing the nearest, and what it faces."""
    world: Any = env.unwrapped
    player = world.game._player
    lines = []
    if player.sleeping:
        line = "You are sleeping, and will not be able take actions until energy is full."
        lines += [line, "", "", ""]
    elif player.health <= 0:
        lines += ["You died.", "", "", ""]
    nearest: dict[str, tuple[int, int]] = {}
    for name, right, down in _around(world, *map(int, player.pos)):
        if name not in nearest or abs(right) + abs(down) < sum(map(abs, nearest[name])):
            nearest[name] = (right, down)
    lines += ["You see:", *(_thing(name, *where) for name, where in nearest.items())]
    front = _at(world, *(player.pos + np.array(player.facing)).tolist()) or "the edge of the world"
    lines += ["", f"You face {front} at your front."]
    return {"mission": MISSION, "descriptions": lines}


def render_with_status(observation: Any, env: gymnasium.Env) -> dict[str, Any]:
    """The same, and then how the player fares and what it carries."""
    world: Any = env.unwrapped
    fields = render(observation, env)
    told = status(world.game._player.inventory).split("\n")
    return {**fields, "descriptions": [*fields["descriptions"], "", *told]}


MISSION = "survive and unlock as many achievements as you can"


def _around(world: Any, x: int, y: int) -> Iterator[tuple[str, int, int]]:
    """(name, cells to the east, cells to the south) of all that is seen, column after column."""
    for right in range(-ACROSS, ACROSS + 1):
        for down in range(-DOWN, DOWN + 1):
            name = _at(world, x + right, y + down)
            if name and (right or down):
                yield name, right, down


def _at(world: Any, x: int, y: int) -> str:
    """The kind of a cell; nothing beyond the edge of the world."""
    width, height = world.semantic.shape
    return world.names[int(world.semantic[x, y])] if 0 <= x < width and 0 <= y < height else ""


def _thing(name: str, right: int, down: int) -> str:
    where = ["south" if down > 0 else "north"] if down else []
    where += ["east" if right > 0 else "west"] if right else []
    steps = abs(right) + abs(down)
    return f"- {name} {steps} step{'s' * (steps > 1)} to your {'-'.join(where)}"


def _all_unlocked(env: gymnasium.Env, reward: float, terminated: bool) -> bool:
    world: Any = env.unwrapped
    return all(world.game._player.achievements.values())


WORLD = World(
    actions={phrase: action for action, phrase in enumerate(PHRASES)},
    renderers={"balrog": render, "with_status": render_with_status},
    noop=NOOP,
    success=_all_unlocked,
)


def make(**arguments: Any) -> TextEnv:
    """Crafter in words; what is no text option goes to :class:`Crafter`."""
    options = take_text_options(arguments)
    return TextEnv(Crafter(**arguments), WORLD, **options)


def register() -> None:
    register_env("Crafter-v0", entry_point=f"{__name__}:make")
