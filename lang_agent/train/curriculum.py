"""Which parts of a mixture are played how often, as a run learns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

FLOOR = 0.1  # of a part's weight stays however well or badly it goes


def learnable(weights: Sequence[float], outcomes: Iterable[tuple[int, float]]) -> list[float]:
    """Weights moved toward the parts being learned: each times 4 p (1 - p), p its success rate.

    What always or never succeeds teaches a policy gradient nothing; half and half teaches most
    (Tzannetos et al. 2023, arXiv 2304.12877, sec. 4; Rutherford et al. 2024, arXiv 2408.15099).

    Args:
        outcomes: (part, success) of recent episodes; one of each is added, so that p is 1/2 where
            nothing is known.
    """
    wins, counts = [1.0] * len(weights), [2.0] * len(weights)
    for part, success in outcomes:
        wins[part] += success
        counts[part] += 1
    rates = [won / count for won, count in zip(wins, counts, strict=True)]
    return [
        weight * max(4 * rate * (1 - rate), FLOOR)
        for weight, rate in zip(weights, rates, strict=True)
    ]
