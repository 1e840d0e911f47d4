"""Signs that a run is going wrong, shown while it can still be stopped."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENTROPY_LEFT = 0.1  # of the first update's
FLAT = 0.9  # of the groups
SPIKE = 10.0  # times the median norm
INVALID = 0.2  # of the actions
MEMORY = 20  # updates whose gradient norms are remembered


@dataclass
class Watch:
    """What alarms compare with."""

    first_entropy: float | None = None
    grad_norms: list[float] = field(default_factory=list)


def alarms(watch: Watch, metrics: Mapping[str, Any]) -> list[str]:
    """What is wrong by an update's metrics, each in a few words; remembers them in ``watch``.

    A policy that nearly always succeeds may be as certain and as uniform as it likes.
    """
    found = []
    unsolved = metrics["success"] < 0.9
    if "entropy" in metrics:
        if watch.first_entropy is None:
            watch.first_entropy = metrics["entropy"]
        if unsolved and metrics["entropy"] < ENTROPY_LEFT * watch.first_entropy:
            found.append(f"entropy collapsed to {metrics['entropy']:.3f}")
    if unsolved and metrics.get("flat_groups", 0.0) > FLAT:
        found.append(f"{metrics['flat_groups']:.0%} of the groups have returns that do not vary")
    norm = metrics.get("grad_norm")
    if norm:  # 0 where no step was taken
        if len(watch.grad_norms) >= 5 and norm > SPIKE * statistics.median(watch.grad_norms):
            found.append(f"gradient norm jumped to {norm:.2g}")
        watch.grad_norms = [*watch.grad_norms, norm][-MEMORY:]
    if metrics["invalid_rate"] > INVALID:
        found.append(f"{metrics['invalid_rate']:.0%} of the actions are invalid")
    if metrics.get("skipped"):
        found.append(f"{metrics['skipped']:.0f} steps skipped: not finite")
    return found
