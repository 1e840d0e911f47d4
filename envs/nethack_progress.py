"""How far a game of NetHack came, as BALROG counts (Paglieri et al. 2024, arXiv 2411.13543): of the
human games that reached this dungeon level, or this experience level, the share that went on to
win.

The figures are BALROG's (github.com/balrog-ai/BALROG, balrog/environments/nle/achievements.json),
rounded to six digits. Its entries for places that are no numbered level (the quest's home, the
Astral Plane) are left out here, as they are never met there either.
"""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
BY_DEPTH = (
    0.000000, 0.015392, 0.017540, 0.021221, 0.026482, 0.035429, 0.048461, 0.069581,
    0.097709, 0.125586, 0.161268, 0.206129, 0.256604, 0.292472, 0.308812, 0.324907,
    0.340079, 0.352646, 0.365488, 0.378957, 0.392937, 0.408323, 0.425836, 0.445181,
    0.466376, 0.506761, 0.554357, 0.601565, 0.646505, 0.691311, 0.710109, 0.717646,
    0.723212, 0.728441, 0.732776, 0.736853, 0.742146, 0.747132, 0.753731, 0.761040,
    0.767408, 0.772534, 0.777163, 0.781257, 0.785899, 0.789026, 0.792972, 0.796741,
    0.801847, 0.806796,
)
"""From dungeon level 1."""
BY_LEVEL = (
    0.000000, 0.018478, 0.020812, 0.024160, 0.029109, 0.036888, 0.050758, 0.074536,
    0.117050, 0.179100, 0.254804, 0.332649, 0.414426, 0.494039, 0.577882, 0.626122,
    0.656282, 0.681022, 0.701533, 0.717449, 0.728698, 0.737100, 0.744345, 0.751345,
    0.758554, 0.764215, 0.770338, 0.775981, 0.778335, 0.780456,
)
"""From experience level 1."""
# fmt: on


def progression(stats: Mapping[str, int]) -> float:
    """Of a state, by its ``depth`` and ``level``: the larger of the two shares, 0 to 1. A number
    outside the table counts nothing."""
    return max(_share(BY_DEPTH, stats["depth"]), _share(BY_LEVEL, stats["level"]))


def _share(table: tuple[float, ...], number: int) -> float:
    return table[number - 1] if 1 <= number <= len(table) else 0.0
