"""What trainers need until an agent succeeds: environment steps, and seconds of one processor core.

All learn BabyAI-GoToLocalS5N2-v0 from the same prompts (recipes/gotolocal_small.yaml has their
words), from random weights, on one thread. Every --every steps, after the update under way, 200
held-out episodes are played with drawn actions, and a run ends with the first such evaluation of
--target or more. What imports and evaluations cost is not counted; a contender's tokenizer, model
and checkpoints are.

Ours learns relabelled decisions too (hindsight), which cost no environment steps. TRL's GRPO writes
freely and takes a prompt that grows, so that it reads the same world as a transcript. Random
weights write no phrase: trl-grpo-taught is taught to by SFT first, on forty episodes of the expert,
whose steps and seconds are counted.

    pip install 'lang_agent[sb3,trl]'
    python benchmarks/trainers.py --out trainers.jsonl --seeds 0 1 2
    python benchmarks/trainers.py --out trainers.jsonl --contenders ours sb3-ppo-bag --seeds 3

Every run is a process of its own and a JSON line; those that are in the file already are not made
again. --jobs makes so many at once, each on a core of its own. Run it alone on the machine. A
further contender is a function of a seed and a Watch, and a row in CONTENDERS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import lang_agent
from lang_agent import Agent, DecideConfig, LanguagePolicy, TrainConfig
from lang_agent.config import load_config

RECIPE = Path(__file__).parent.parent / "recipes" / "gotolocal_small.yaml"
SLOTS = 16  # episodes played at once, in training and in evaluations


def make_world(prompt: str | None = None) -> Any:
    """The environment that all learn, in the recipe's words or another prompt's."""
    text = recipe().text
    return replace(text, prompt=prompt or text.prompt).make(recipe().env)


def recipe() -> TrainConfig:
    return load_config(RECIPE, TrainConfig, trust=True)


def spent() -> float:
    """Processor seconds of this process and of those that it has started and waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@dataclass
class Watch:
    """A run's clock, which stands still while the agent is evaluated."""

    every: int
    target: float
    most_steps: int
    most_seconds: float
    episodes: int = 200
    prompt: str | None = None  # of the evaluations; the recipe's
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    """(steps, processor seconds, success) of each evaluation."""
    began: float = 0.0
    reached: bool = False

    def begin(self) -> None:
        """Start the clock: what is needed has been imported."""
        make_world()  # which imports the worlds
        self.began = spent()

    def look(self, steps: int, make_agent: Callable[[], Agent]) -> bool:
        """Whether the run is over, ``steps`` environment steps from its start: to be asked after
        every update. The agent is made, and evaluated, where it is time for it."""
        seconds = spent() - self.began
        over = steps >= self.most_steps or seconds >= self.most_seconds
        due = steps // self.every > (self.curve[-1][0] // self.every if self.curve else 0)
        if steps and (due or over):
            stopped = spent()
            envs = [make_world(self.prompt) for _ in range(SLOTS)]
            (row,) = lang_agent.evaluate(make_agent(), envs, self.episodes)
            self.curve.append((steps, round(seconds, 1), row.success))
            self.reached = row.success >= self.target
            print(f"  {steps:>6} steps  {seconds:7.1f} s  success {row.success:.3f}", flush=True)
            self.began += spent() - stopped
        return over or self.reached


Contender = Callable[[int, Watch], None]


def ours(seed: int, watch: Watch) -> None:
    """`lang-agent train --config recipes/gotolocal_small.yaml`, of the recipe's length."""
    from lang_agent.train.trainer import start

    watch.begin()
    settings: dict[str, Any] = {"threads": 1, "snapshot_every": 0, "gif": False, "track": ("none",)}
    config = replace(recipe(), seed=seed, envs=SLOTS, **settings)
    with tempfile.TemporaryDirectory() as folder:
        run = start(config, Path(folder) / "run")

        def on_update(metrics: dict[str, Any]) -> None:
            if watch.look(metrics["steps"], lambda: run.agent(SLOTS)):
                run.stop = True

        run.run(on_update)


def sb3(algorithm: str, features: str, policy: dict[str, Any], **settings: Any) -> Contender:
    """An algorithm of Stable-Baselines3 or sb3-contrib on token ids."""

    def run(seed: int, watch: Watch) -> None:
        import sb3_contrib
        import stable_baselines3
        from stable_baselines3.common.callbacks import BaseCallback
        from stable_baselines3.common.env_util import make_vec_env

        from lang_agent.bridges import sb3_features
        from lang_agent.bridges.sb3_agent import SB3Agent
        from lang_agent.bridges.sb3_env import TokenEnv, new_tokenizer
        from lang_agent.train.vocabulary import sample_texts

        watch.begin()
        options: dict[str, Any] = {}
        if features == "LanguageModelFeatures":  # the network that ours begins with
            texts = sample_texts([make_world()])
            language = LanguagePolicy.from_scratch("nano", seed=seed, texts=texts)
            options = {"model": language, "trained": True}
            tokenizer = language.tokenizer
        else:
            tokenizer = new_tokenizer([make_world()])
        envs = make_vec_env(lambda: TokenEnv(make_world(), tokenizer, length=96), SLOTS, seed)
        kind: Any = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
        model = kind(
            "MlpPolicy",
            envs,
            seed=seed,
            device="cpu",
            policy_kwargs={
                "features_extractor_class": getattr(sb3_features, features),
                "features_extractor_kwargs": options,
                **policy,
            },
            **settings,
        )

        class Look(BaseCallback):
            over = False

            def _on_rollout_start(self) -> None:  # the update of the rollout before is done
                drawn = DecideConfig(temperature=1)
                self.over = watch.look(self.num_timesteps, lambda: SB3Agent(model, drawn))

            def _on_step(self) -> bool:
                return not self.over

        model.learn(watch.most_steps + 1, callback=Look())

    return run


def trl(taught: bool) -> Contender:
    """TRL's GRPO on whole episodes, by recipes/trl_grpo.py's settings; ``taught`` by SFT first."""

    def run(seed: int, watch: Watch) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

        from lang_agent import PolicyAgent
        from lang_agent.bridges.trl_training import (
            Rollouts,
            episode_return,
            seeds_dataset,
            sft_dataset,
        )
        from lang_agent.train.demonstrate import demonstrate
        from lang_agent.train.vocabulary import sample_texts

        watch.prompt = "transcript"
        watch.begin()
        written = DecideConfig("generate", max_new_tokens=6)
        common: dict[str, Any] = {
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "save_strategy": "no",
            "seed": seed,
            "disable_tqdm": True,
        }
        steps = 0

        class Counted(Rollouts):
            def __call__(self, prompts: Any, trainer: Any) -> dict[str, Any]:
                nonlocal steps
                played = super().__call__(prompts, trainer)
                steps += sum(played["episode_steps"])
                return played

        with tempfile.TemporaryDirectory() as folder:
            texts = sample_texts([make_world(watch.prompt)])
            LanguagePolicy.from_scratch("nano", seed=seed, texts=texts).save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(folder)
            if taught:
                text = replace(recipe().text, prompt=watch.prompt)
                shown = list(demonstrate(recipe().env, text, 40))
                steps += sum(len(episode.steps) for episode in shown)
                SFTTrainer(
                    model,
                    args=SFTConfig(
                        folder,
                        num_train_epochs=20,
                        per_device_train_batch_size=16,
                        learning_rate=1e-3,
                        **common,
                    ),
                    train_dataset=sft_dataset(shown),
                    processing_class=tokenizer,
                ).train()

            def make_agent() -> Agent:
                trainer.save_model(folder)
                return PolicyAgent(LanguagePolicy.from_pretrained(folder), SLOTS, written)

            class Look(TrainerCallback):
                def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                    if watch.look(steps, make_agent):
                        control.should_training_stop = True

            trainer = GRPOTrainer(
                model,
                reward_funcs=episode_return,
                args=GRPOConfig(
                    folder,
                    max_steps=100_000,
                    per_device_train_batch_size=32,
                    num_generations=8,
                    learning_rate=5e-4,
                    **common,
                ),
                train_dataset=seeds_dataset(range(seed * 10_000, seed * 10_000 + 10_000)),
                processing_class=tokenizer,
                rollout_func=Counted(
                    lambda: make_world(watch.prompt), envs=32, max_new_tokens=written.max_new_tokens
                ),
                callbacks=[Look()],
            )
            trainer.train()

    return run


# Chosen on seed 100 (docs/sb3.md says among what); discount and trace are the recipe's own, too.
TRANSFORMER: dict[str, Any] = {
    "features": "TransformerFeatures",
    "policy": {"ortho_init": False, "net_arch": []},
    "learning_rate": 1e-3,
    "n_steps": 32,
    "batch_size": 128,
    "n_epochs": 4,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "ent_coef": 0.01,
}
BAG: dict[str, Any] = {
    **TRANSFORMER,
    "features": "BagFeatures",
    "policy": {},
    "n_epochs": 10,
}
NANO: dict[str, Any] = {**TRANSFORMER, "features": "LanguageModelFeatures"}
CONTENDERS: dict[str, Contender] = {
    "ours": ours,
    "sb3-ppo-transformer": sb3("PPO", **TRANSFORMER),
    "sb3-ppo-bag": sb3("PPO", **BAG),
    "sb3-ppo-nano": sb3("PPO", **NANO),
    "sb3-maskableppo-transformer": sb3("MaskablePPO", **TRANSFORMER),
    "sb3-maskableppo-bag": sb3("MaskablePPO", **BAG),
    "trl-grpo": trl(taught=False),
    "trl-grpo-taught": trl(taught=True),
}


def made(file: Path) -> set[tuple[str, int]]:
    """The runs in the file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {(row["contender"], row["seed"]) for row in map(json.loads, filter(None, lines))}


PACKAGES = (
    "lang_agent", "torch", "transformers", "gymnasium", "minigrid", "stable-baselines3",
    "sb3-contrib", "trl",
)  # fmt: skip


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def one_run(job: tuple[str, int, argparse.Namespace, Any]) -> dict[str, Any] | None:
    """One contender on one seed, in this process, on a core that is free; None where it fails."""
    name, seed, args, cores = job
    core = cores.get()
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        torch.set_num_threads(1)
        print(f"{name}, seed {seed}", flush=True)
        watch = Watch(args.every, args.target, args.steps, args.cpu_seconds)
        CONTENDERS[name](seed, watch)
        steps, seconds, success = watch.curve[-1]
        return {
            "contender": name,
            "env": recipe().env,
            "seed": seed,
            "reached": watch.reached,
            "steps": steps,
            "cpu_seconds": seconds,
            "success": success,
            "target": args.target,
            "curve": watch.curve,
            "versions": {package: installed(package) for package in PACKAGES},
            "python": sys.version.split()[0],
        }
    except Exception:
        print(f"{name}, seed {seed}: failed\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return None
    finally:
        cores.put(core)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("trainers.jsonl"))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--every", type=int, default=500)
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--cpu-seconds", type=float, default=3600.0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on its own core")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so end what was started
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(args.jobs, maxtasksperchild=1) as pool:
        cores = manager.Queue()
        for core in sorted(os.sched_getaffinity(0))[: args.jobs]:
            cores.put(core)
        for _ in range(args.jobs - len(os.sched_getaffinity(0))):
            cores.put(None)
        jobs = [
            (name, seed, args, cores)
            for seed in args.seeds
            for name in args.contenders
            if (name, seed) not in made(args.out)
        ]
        for row in pool.imap_unordered(one_run, jobs, chunksize=1):
            if row is not None:
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
