"""What an update of the demo takes as workers are added: a model of its parts.

    python benchmarks/time_model.py

What is measured and what is assumed stands beside each constant; docs/scaling.md reads the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Update:
    """One update of the demo: seconds and counts. Measured on one core with AMX, in float32."""

    episodes: int = 32  # measured: of a rollout of 512 steps, early in the run
    longest: int = 25  # steps, measured: the level's limit, which most early episodes reach
    slots: int = 16  # environments of a worker
    act_pass: float = 2.0e-3  # measured, of a pass and its environments' steps, however few rows
    act_row: float = 0.42e-3  # measured, of each row on top
    learn: float = 0.95  # measured, of four epochs' passes and gradients
    batch: float = 3e-3  # assumed, that a batch takes however few tokens it has
    gradient_steps: int = 8  # measured: four epochs of two minibatches
    muon: float = 14.7e-3  # measured, of a step
    muon_least: float = 1.0e-3  # assumed, its largest matrix, which nobody shares
    parameters: float = 0.97e6  # counted
    matrices: float = 0.79e6  # counted, of them those that Muon moves
    bandwidth: float = 1.3e9  # bytes a second; measured on one machine (gloo, loopback)
    latency: float = 5e-5  # seconds a message, assumed


def parts(n: int, update: Update) -> dict[str, float]:
    """Seconds of an update's parts with n workers."""
    mine = math.ceil(update.episodes / n)
    waves = math.ceil(mine / update.slots)
    rows = min(mine, update.slots) * 0.75  # measured: of a rollout's passes, so full on average
    acting = waves * update.longest * (update.act_pass + update.act_row * rows)
    even = acting * update.episodes / n / mine  # were episodes divisible
    muon = max(update.muon / n, update.muon_least)
    exchanged = 4 * (update.parameters + (update.matrices if n > 1 else 0))
    ring = 2 * (n - 1) / n * exchanged / update.bandwidth + 4 * (n - 1) * update.latency
    return {
        "acting": even,
        "stragglers": acting - even,
        "learning": update.learn / n + update.gradient_steps * (2 * update.batch + muon),
        "all-reduce": update.gradient_steps * (ring if n > 1 else 0.0),
    }


def table(title: str, updates: dict[int, Update]) -> None:
    print(title)
    print(f"{'workers':>8}{'acting':>9}{'stragglers':>12}{'learning':>10}{'all-reduce':>12}"
          f"{'update':>9}{'times one':>11}")  # fmt: skip
    one = sum(parts(1, updates[1]).values()) / updates[1].episodes
    for n, update in updates.items():
        found = parts(n, update)
        whole = sum(found.values())
        print(f"{n:8}{found['acting']:9.3f}{found['stragglers']:12.3f}{found['learning']:10.3f}"
              f"{found['all-reduce']:12.3f}{whole:9.3f}"
              f"{one * update.episodes / whole:11.2f}")  # fmt: skip


def main() -> None:
    demo, sizes = Update(), (1, 2, 8, 64, 1000)
    # Beyond one machine: 10 Gbit/s, assumed.
    net = replace(demo, bandwidth=1.25e9)
    table("512 steps an update, whoever plays them", {n: net if n > 2 else demo for n in sizes})
    grown = {n: replace(net if n > 2 else demo, episodes=32 * n, learn=demo.learn * n,
                        ) for n in sizes}  # fmt: skip
    table("512 steps an update for each worker, minibatches larger in proportion", grown)


if __name__ == "__main__":
    main()
