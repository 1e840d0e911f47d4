"""The demo's environment steps a second by one process and by several workers, in turns.

    python benchmarks/workers.py                     # about five minutes on an idle machine
    python benchmarks/workers.py --workers 2 4 --rounds 5

Each figure is the median over the rounds of short runs of ``recipes/demo.yaml`` through the command
line, the first update left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from busy import steps_per_second

from lang_agent.processes import cores


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12, help="that each run is measured for")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[max(cores(), 2)])
    args = parser.parse_args()
    ways = {
        "one process, one thread": ["--threads", "1"],
        "one process, two threads": ["--threads", "2"],
        **{f"{n} workers, one thread each": ["--workers", str(n)] for n in args.workers},
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for done in range(args.rounds):
        for way, options in ways.items():
            rates[way].append(steps_per_second(options, dict(os.environ), args.seconds))
            time.sleep(WAIT)
            print(f"round {done + 1}: {way:<32}{rates[way][-1]:7.1f}", flush=True)
    alone = statistics.median(rates["one process, one thread"])
    for way, found in rates.items():
        middle = statistics.median(found)
        print(f"{way:<32}{middle:7.1f} steps a second, {middle / alone:5.2f} times one process")


WAIT = 2.0  # seconds in which a killed run's other workers notice that it has ended

if __name__ == "__main__":
    main()
