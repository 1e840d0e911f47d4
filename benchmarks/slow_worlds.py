"""Environment steps a second in worlds that are slow: stepped here, and by processes of their own.

    python benchmarks/slow_worlds.py                     # about eight minutes
    python benchmarks/slow_worlds.py --rounds 1

The worlds are the demo's room, made slow: one that is waited for, as a remote model is (50 ms a
step on average, exponentially distributed), one that now and then is waited for long (a step in
fifty takes two seconds), and one that computes for 5 ms a step. PPO learns from rollouts of 512
steps, 16 episodes at once; the first update is left out.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
from busy import steps_per_second

import lang_agent
from lang_agent import LanguagePolicy, TextConfig
from lang_agent.train.vocabulary import sample_texts

KINDS = ("waits", "waits long", "computes")


class Slow(gymnasium.Wrapper[str, str, str, str]):
    """A world in which a step takes a while."""

    def __init__(self, env: gymnasium.Env[str, str], kind: str) -> None:
        super().__init__(env)
        self.kind, self._draw = kind, random.Random()

    def step(self, action: str) -> Any:
        if self.kind == "waits":
            time.sleep(self._draw.expovariate(1 / 0.05))
        elif self.kind == "waits long":
            time.sleep(2.0 * (self._draw.random() < 1 / 50))
        else:
            end = time.thread_time() + 0.005
            while time.thread_time() < end:
                pass
        return self.env.step(action)


def make_slow(kind: str, **options: Any) -> gymnasium.Env[str, str]:
    return Slow(lang_agent.make("BabyAI-GoToLocalS5N2-v0", **options), kind)


for _kind in KINDS:
    gymnasium.register(
        f"{_kind.title().replace(' ', '')}Room-v0", make_slow, kwargs={"kind": _kind}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="that each run is measured for")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    here = str(Path(__file__).parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        # A new model's vocabulary is sampled from the world, which is slow: it comes from the room.
        texts = sample_texts([TextConfig(prompt="goal_last").make("BabyAI-GoToLocalS5N2-v0")])
        LanguagePolicy.from_scratch("nano", seed=0, texts=texts).save_pretrained(folder)
        for kind in KINDS:
            world = ["--env", f"slow_worlds:{kind.title().replace(' ', '')}Room-v0"]
            rates: dict[str, list[float]] = {"here": [], "in processes": []}
            for _ in range(args.rounds):
                for way, found in rates.items():
                    options = [*world, "--threads", "1", "--model", folder]
                    if way != "here":
                        options += ["--async-envs"]
                    found.append(steps_per_second(options, env, args.seconds))
            alone, apart = map(statistics.median, rates.values())
            print(
                f"{kind:<12} here {alone:6.1f}, in processes of their own {apart:6.1f} steps a "
                f"second: {apart / alone:.2f} times",
                flush=True,
            )


if __name__ == "__main__":
    main()
