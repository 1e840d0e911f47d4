"""The demo's environment steps a second, alone and with one busy process a core beside it.

    python benchmarks/busy.py                                # about 4 minutes
    python benchmarks/busy.py --model micro --seconds 30
    python tests/avx2.py python benchmarks/busy.py           # as on a processor without bf16

Each figure is one short run of ``recipes/demo.yaml`` through the command line, in a process of its
own, its first update left out. Threads that wait for one another give their processor away
(passive, what the command line chooses unless ``OMP_WAIT_POLICY`` says otherwise) or count in a
loop (spinning, what torch does on its own). One thread beside one busy process a core keeps, on n
cores, n / (n + 1) of its speed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEMO = Path(__file__).parents[1] / "recipes" / "demo.yaml"
LOOP = "while True: pass"


def steps_per_second(
    options: list[str], env: dict[str, str], seconds: float, recipe: Path = DEMO
) -> float:
    """Environment steps a second of a run with these options, of what ``seconds`` hold and at
    least one update."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lang_agent", "train", "--config", str(recipe)]
        command += ["--out", f"{folder}/run", "--steps", "1000000", "--eval-episodes", "0"]
        command += ["--no-gif", *options]
        if "--workers" not in options:
            command += ["--workers", "1"]
        log = Path(folder) / "run" / "metrics.jsonl"
        run = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        try:
            rows: list[dict[str, float]] = []
            while len(rows) < 2 or rows[-1]["seconds"] - rows[0]["seconds"] < seconds:
                time.sleep(0.2)
                if run.poll() is not None:
                    raise SystemExit("the run ended early: see its message above")
                if log.exists():
                    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
                    rows = [json.loads(line) for line in lines]
        finally:
            run.send_signal(signal.SIGINT)  # and so end those that it started
            run.wait()
    return (rows[-1]["steps"] - rows[0]["steps"]) / (rows[-1]["seconds"] - rows[0]["seconds"])


def beside(busy: int, options: list[str], env: dict[str, str], seconds: float) -> float:
    """The same with so many busy processes beside it."""
    others = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(busy)]
    try:
        return steps_per_second(options, env, seconds)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10, help="that each run is measured for")
    parser.add_argument("--rounds", type=int, default=1, help="alone and beside, in turns")
    parser.add_argument("--model", default="nano")
    cores = os.cpu_count() or 1
    parser.add_argument("--busy", type=int, default=cores, help="busy processes; one a core")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so end what was started
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    # libgomp's own way: to count to this, and only then to sleep
    spinning = plain | {"GOMP_SPINCOUNT": "300000"}
    every = max(2, cores)
    settings = {
        "default": ([], plain),
        "1 thread": (["--threads", "1"], plain),
        f"{every} threads, passive": (["--threads", f"{every}"], plain),
        f"{every} threads, spinning": (["--threads", f"{every}"], spinning),
    }
    print(f"{args.model}, steps a second: alone, and beside {args.busy} busy processes")
    for name, (options, env) in settings.items():
        options = ["--model", args.model, *options]
        found: dict[int, list[float]] = {0: [], args.busy: []}
        for _ in range(args.rounds):
            for busy, rates in found.items():
                rates.append(beside(busy, options, env, args.seconds))
        alone, shared = map(statistics.median, found.values())
        print(f"{name:<22}{alone:8.1f}{shared:8.1f}   kept {shared / alone:.2f}", flush=True)


if __name__ == "__main__":
    main()
