"""Environment steps per CPU second: plain minigrid against the same level in words.

Both take the same random moves on the same seeds, in turns, in one process; resets are included.
Run it alone on the machine: python benchmarks/env_steps.py
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import gymnasium

import lang_agent

MOVES = ("turn left", "turn right", "go forward")


def rate(env: gymnasium.Env, moves: tuple, steps: int) -> float:
    """Steps per CPU second over ``steps`` random moves."""
    draw = random.Random(0)
    env.reset(seed=0)
    started = time.process_time()
    for _ in range(steps):
        *_, terminated, truncated, _ = env.step(moves[draw.randrange(3)])
        if terminated or truncated:
            env.reset()
    return steps / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="BabyAI-GoToLocal-v0")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    prompts = ("transcript", "minimal", "glam", "balrog")
    worded = {name: lang_agent.make(args.env, prompt=name) for name in prompts}
    plain = gymnasium.make(args.env)  # known to Gymnasium by now
    ratios: dict[str, list[float]] = {name: [] for name in prompts}
    for _ in range(args.rounds):
        base = rate(plain, (0, 1, 2), args.steps)
        for name, env in worded.items():
            ratios[name].append(rate(env, MOVES, args.steps) / base)
    print(f"{args.env}, plain minigrid = 1, median (least to most) of {args.rounds} rounds")
    for name, values in ratios.items():
        middle = statistics.median(values)
        print(f"{name:<11} {middle:.2f}  ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
