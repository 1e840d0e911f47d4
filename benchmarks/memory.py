"""Memory of a PPO run of a model of GPT-2 small's size on the CPU, update by update.

    python benchmarks/memory.py --updates 200

Prints the resident size after every tenth update (with a checkpoint after each fiftieth), the peak,
and the growth from the first quarter of the updates to the last.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path

import torch

from lang_agent.cli.bench import gpt2
from lang_agent.learn.config import LearnConfig
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import start

GIB = 2.0**30


def resident() -> float:
    """GiB of memory that this process holds now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / GIB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=200)
    updates = parser.parse_args().updates
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "gpt2-small"
        gpt2(12, 768, 12, torch.device("cpu")).save_pretrained(model)
        config = TrainConfig(
            env="BabyAI-MixedLocal-v0",
            text=TextConfig(env_args=("num_dists=8", "max_steps=4")),
            model=str(model),
            learn=LearnConfig(epochs=1, minibatch_decisions=8, target_kl=None),
            steps=10**9,
            rollout_steps=5,  # two episodes of four steps
            envs=2,
            checkpoint_every=50,
            eval_episodes=0,
        )
        trainer = start(config, Path(folder) / "run")
        sizes: list[float] = []

        def watch(metrics: dict[str, float]) -> None:
            sizes.append(resident())
            if len(sizes) % 10 == 0:
                print(f"update {len(sizes):4}: {sizes[-1]:.2f} GiB", flush=True)
            trainer.stop = len(sizes) == updates

        trainer.run(watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    quarter = max(len(sizes) // 4, 1)
    early, late = statistics.median(sizes[:quarter]), statistics.median(sizes[-quarter:])
    print(f"peak {peak:.2f} GiB; median of the first quarter {early:.2f}, of the last {late:.2f}")


if __name__ == "__main__":
    main()
