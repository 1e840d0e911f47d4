"""Memory of each process that trains a model of GPT-2 small's size whole, and shared out (Linux).

    python benchmarks/sharding.py --updates 3              # some ten minutes
    python benchmarks/sharding.py --workers 4

Trains the same run by one process and by ``--workers N --shard``, and prints the most memory that
each process held (its resident set, the libraries' quarter of a GiB included), the steps a second,
and how far the losses of the two are apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lang_agent.cli.bench import gpt2

SAME = ("policy_loss", "value_loss", "entropy", "approx_kl", "grad_norm", "return")
OPTIONS = [
    "--env", "BabyAI-MixedLocal-v0", "--env-args", "num_dists=8", "max_steps=4",
    "--algorithm", "ppo", "--epochs", "1", "--minibatch-decisions", "8", "--target-kl", "None",
    "--rollout-steps", "16", "--envs", "2", "--precision", "fp32", "--eval-episodes", "0",
    "--snapshot-every", "0", "--track", "none", "--optimizer", "adamw", "--threads", "1",
]  # fmt: skip


def most_memory(pid: int) -> float:
    """GiB that a process has held at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    return 0.0


def measured(model: Path, run: Path, options: list[str]) -> tuple[list[float], list[dict]]:
    """The most memory of a run's processes, and its updates' metrics."""
    command = [sys.executable, "-m", "lang_agent", "train", "--model", str(model)]
    process = subprocess.Popen(
        [*command, *OPTIONS, "--out", str(run), *options], stdout=subprocess.DEVNULL
    )
    most: dict[int, float] = {}
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            for pid in (process.pid, *map(int, children.read_text().split())):
                most[pid] = most_memory(pid) or most.get(pid, 0.0)
        except OSError:  # one has just ended
            pass
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit("the run ended early: see its message above")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [*most.values()], [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    steps = ["--steps", str(16 * args.updates)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "gpt2-small"
        policy = gpt2(12, 768, 12, torch.device("cpu"))
        policy.save_pretrained(model)
        print(f"{sum(p.numel() for p in policy.parameters()) / 1e6:.0f} million parameters, fp32")
        alone, one = measured(model, Path(folder) / "one", steps)
        options = [*steps, "--workers", str(args.workers), "--shard"]
        each, several = measured(model, Path(folder) / "several", options)
    for name, most, rows in (("whole", alone, one), ("shared out", each, several)):
        sizes = " and ".join(f"{size:.2f}" for size in most)
        taken = sum(row["steps_per_second"] for row in rows[1:]) / max(len(rows) - 1, 1)
        print(f"{name:<12}{sizes} GiB at most, {taken:.2f} steps a second after the first update")
    for row, other in zip(one, several, strict=True):
        apart = {name: abs(row[name] - other[name]) for name in SAME}
        worst = max(apart, key=lambda name: apart[name])
        print(f"update {row['updates']}: {worst} is furthest apart, by {apart[worst]:.1e}")


if __name__ == "__main__":
    main()
