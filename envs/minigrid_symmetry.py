"""Ways to see BabyAI's worlds in which they are as good: in the mirror, and in other colours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import COLOR_NAMES, COLOR_TO_IDX, OBJECT_TO_IDX

from lang_agent.text_env.world import Symmetry

COLORED = [OBJECT_TO_IDX[name] for name in ("door", "key", "ball", "box")]
MIRRORED = {Actions.left: Actions.right, Actions.right: Actions.left}


def draw_symmetry(
    mission: str, generator: np.random.Generator, may_say: Callable[[str], bool] | None = None
) -> Symmetry:
    """Left and right exchanged, in half of the draws, and the six colours in an order of their own,
    in which ``may_say`` allows the mission.

    A key still opens the door of its colour. Missions that say where a thing lies ("on your left")
    would have to be turned too: the goal detector tells of none.
    """
    mirrored = bool(generator.integers(2))
    while True:
        colors = dict(zip(COLOR_NAMES, map(str, generator.permutation(COLOR_NAMES)), strict=True))
        if may_say is None or may_say(_recolored(colors, mission)):
            break
    codes = np.arange(256, dtype=np.uint8)
    for color, other in colors.items():
        codes[COLOR_TO_IDX[color]] = COLOR_TO_IDX[other]
    return Symmetry(
        observation=partial(_seen, mirrored, codes),
        mission=partial(_recolored, colors),
        action=partial(_mirrored, mirrored),
    )


def _seen(mirrored: bool, codes: np.ndarray, observation: Any) -> np.ndarray:
    """minigrid's partial view, columns first, seen so."""
    image = observation["image"] if isinstance(observation, Mapping) else observation
    kind, color, state = np.moveaxis(image[::-1] if mirrored else image, -1, 0)
    shades = np.where(np.isin(kind, COLORED), codes[color], color)
    return np.stack([kind, shades, state], axis=-1)


def _recolored(colors: Mapping[str, str], mission: str) -> str:
    return re.sub(r"\w+", lambda found: colors.get(found[0], found[0]), mission)


def _mirrored(mirrored: bool, action: Any) -> Any:
    return MIRRORED.get(action, action) if mirrored else action
