"""A language model as the policy network of Stable-Baselines3's PPO, rewarded for what it writes.

The state is the text so far, the action the next token. Beside it, our own trainer from the same
writer, with the same rewards and as many texts:

    python recipes/diary.py 20000 > diary.txt
    lang-agent pretrain diary.txt --model nano --steps 400 --out writer
    pip install 'lang_agent[sb3,text]'
    python recipes/sb3_writer.py --writer writer --reward length --trainer sb3 --seed 1
    python recipes/sb3_writer.py --writer writer --reward length --trainer ours --seed 1

Each prints a line of JSON: the reward before and after over 200 held-out texts that are drawn, how
likely these are under the writer as it was (nats a token), and processor seconds of the training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import lang_agent
from lang_agent import DecideConfig, LanguagePolicy, LearnConfig, PolicyAgent, TextConfig
from lang_agent.bridges.sb3_writer import LanguageModelPolicy, TokenWritingEnv
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import start

REWARDS: dict[str, Any] = {
    "length": {"length": {"target": 12, "tolerance": 0.5}},
    "sentiment": {"sentiment": 1},
}
DECIDE = DecideConfig("generate", max_new_tokens=24)
AT_ONCE = 32  # texts


def make_env(reward: str, **more: Any) -> Any:
    return lang_agent.make("TextGeneration-v0", rewards={**REWARDS[reward], **more})


def with_sb3(writer: LanguagePolicy, reward: str, texts: int, seed: int) -> int:
    """Learn from so many texts, about; returns from how many."""
    written = 0

    def count(local: dict[str, Any], _: Any) -> bool:
        nonlocal written
        written += int(local["dones"].sum())
        return written < texts

    envs = make_vec_env(lambda: TokenWritingEnv(make_env(reward), writer), AT_ONCE, seed)
    model = PPO(
        LanguageModelPolicy,
        envs,
        policy_kwargs={"language": writer},
        learning_rate=3e-4,
        n_steps=24,
        batch_size=128,
        n_epochs=3,
        gamma=1.0,
        gae_lambda=0.95,
        seed=seed,
        device="cpu",
    )
    model.learn(texts * DECIDE.max_new_tokens, callback=count)
    return written


def with_ours(writer: LanguagePolicy, reward: str, texts: int, seed: int) -> int:
    """The same by ``lang-agent train --algorithm ppo``, each token with its own advantage."""
    config = TrainConfig(
        env="TextGeneration-v0",
        text=TextConfig(env_args=(f"rewards={json.dumps(REWARDS[reward])}",)),
        decide=DECIDE,
        learn=LearnConfig(
            "ppo", credit="tokens", learning_rate=1e-3, minibatch_decisions=64, epochs=2,
            entropy_coef=0.0,
        ),
        steps=texts, rollout_steps=64, envs=AT_ONCE, seed=seed, threads=1, track=("none",),
        snapshot_every=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = start(config, Path(folder) / "run", writer)
        run.run()
        return run.progress.steps


def judged(writer: LanguagePolicy, reward: str, folder: str) -> tuple[float, float]:
    """Reward and fluency over 200 held-out texts."""
    envs = [make_env(reward, fluency={"weight": 0, "model": folder}) for _ in range(AT_ONCE)]
    fluency: list[float] = []

    def keep(episode: lang_agent.Episode) -> None:
        value = episode.steps[-1].info["rewards"].get("fluency")
        fluency.extend([] if value is None else [value])

    agent = PolicyAgent(writer, AT_ONCE, DECIDE)
    (row,) = lang_agent.evaluate(agent, envs, 200, on_episode=keep)
    return row.mean_return, sum(fluency) / len(fluency)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writer", default="writer", help="what lang-agent pretrain wrote")
    parser.add_argument("--reward", choices=REWARDS, default="length")
    parser.add_argument("--trainer", choices=("sb3", "ours"), default="sb3")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="the folder to save the writer in")
    args = parser.parse_args()
    torch.set_num_threads(1)
    writer = lang_agent.load_policy(args.writer)
    before, _ = judged(writer, args.reward, args.writer)
    started = time.process_time()
    train = with_sb3 if args.trainer == "sb3" else with_ours
    texts = train(writer, args.reward, args.texts, args.seed)
    seconds = time.process_time() - started
    after, fluency = judged(writer, args.reward, args.writer)
    row = {
        "trainer": args.trainer, "reward": args.reward, "seed": args.seed, "texts": texts,
        "cpu_seconds": round(seconds), "before": round(before, 3), "after": round(after, 3),
        "fluency": round(fluency, 2),
    }  # fmt: skip
    print(json.dumps(row))
    envs = [make_env(args.reward)]
    agent = PolicyAgent(writer, 1, DECIDE)
    for episode in lang_agent.play(agent, envs, range(10**9, 10**9 + 3)):
        (step,) = episode.steps
        print(f"{step.observation.prompt}|{step.decision.action}")
    if args.out:
        writer.save_pretrained(args.out)


if __name__ == "__main__":
    main()
