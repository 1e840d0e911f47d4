"""A recipe's environment steps a second by one process and by several workers, in turns.

    python benchmarks/workers.py                     # about six minutes on an idle machine
    python benchmarks/workers.py --workers 2 4 --rounds 5
    python benchmarks/workers.py --ray               # and the same workers started by Ray
    python benchmarks/workers.py --recipe recipes/reward_alone.yaml

Each figure is the median over the rounds of short runs through the command line, the first update
left out, with its ratio to one process in the same round. Two runs that have nothing to do with one
another, side by side, say what the machine has for two processes at most.
"""

from __future__ import annotations

import argparse
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from busy import DEMO, steps_per_second

from lang_agent.processes import cores

SIDE_BY_SIDE = "two runs, one thread each"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12, help="that each run is measured for")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[max(cores(), 2)])
    parser.add_argument("--ray", action="store_true", help="start the workers by Ray, too")
    parser.add_argument("--recipe", type=Path, default=DEMO)
    args = parser.parse_args()
    ways = {
        "one process, one thread": ["--threads", "1"],
        "one process, two threads": ["--threads", "2"],
        SIDE_BY_SIDE: ["--threads", "1"],
        **{f"{n} workers, one thread each": ["--workers", str(n)] for n in args.workers},
    }
    if args.ray:
        for n in args.workers:
            ways[f"{n} workers, by Ray"] = ["--workers", str(n), "--address", "local"]

    def rate(options: list[str]) -> float:
        return steps_per_second(options, dict(os.environ), args.seconds, args.recipe)

    rates: dict[str, list[float]] = {way: [] for way in ways}
    for done in range(args.rounds):
        for way, options in ways.items():
            runs = 2 if way == SIDE_BY_SIDE else 1
            with ThreadPoolExecutor(runs) as threads:
                measured = threads.map(rate, [options] * runs)
                rates[way].append(sum(measured))
            print(f"round {done + 1}: {way:<32}{rates[way][-1]:7.1f}", flush=True)
    alone = rates["one process, one thread"]
    for way, found in rates.items():
        times = [each / one for each, one in zip(found, alone, strict=True)]
        print(
            f"{way:<32}{statistics.median(found):7.1f} steps a second, "
            f"{statistics.median(times):5.2f} times one process ({min(times):.2f} to "
            f"{max(times):.2f})"
        )


if __name__ == "__main__":
    main()
