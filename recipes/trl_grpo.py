"""TRL on a world of ours: SFT on a few demonstrations, then GRPO on the episodes' returns.

    pip install 'lang_agent[trl]'
    python recipes/trl_grpo.py runs/trl

A GPT-2 of random weights (nano) first learns from forty episodes of BabyAI's expert to write
phrases, and then from reward alone to go where the goal says. Figures: docs/trl.md.
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

import lang_agent
from lang_agent import DecideConfig, LanguagePolicy, PolicyAgent
from lang_agent.bridges.trl_training import Rollouts, episode_return, seeds_dataset, sft_dataset
from lang_agent.text_env.config import TextConfig
from lang_agent.train.demonstrate import demonstrate

WORLD = "BabyAI-GoToLocalS5N2-v0"
COMMON = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "seed": 1,
    "logging_steps": 10,
}


def make_env():
    return lang_agent.make(WORLD, max_steps=12)


def success(folder):
    """On 200 unseen seeds, with the answers written freely as in GRPO."""
    agent = PolicyAgent(LanguagePolicy.from_pretrained(folder), 16, DecideConfig("generate"))
    (row,) = lang_agent.evaluate(agent, [make_env() for _ in range(16)], episodes=200)
    return row.success


def main(out):
    start, taught, learned = (str(out / name) for name in ("start", "taught", "learned"))
    LanguagePolicy.from_scratch("nano", seed=1).save_pretrained(start)

    tokenizer = AutoTokenizer.from_pretrained(start)
    sft = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(start),
        args=SFTConfig(
            taught,
            num_train_epochs=20,
            per_device_train_batch_size=16,
            learning_rate=1e-3,
            **COMMON,
        ),
        train_dataset=sft_dataset(demonstrate(WORLD, TextConfig(), 40)),
        processing_class=tokenizer,
    )
    sft.train()
    sft.save_model(taught)
    print("after SFT:", success(taught))

    grpo = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(taught),
        reward_funcs=episode_return,
        args=GRPOConfig(
            learned,
            max_steps=80,
            per_device_train_batch_size=32,
            num_generations=8,
            learning_rate=5e-4,
            **COMMON,
        ),
        train_dataset=seeds_dataset(range(100_000, 101_000)),
        processing_class=tokenizer,
        rollout_func=Rollouts(make_env, envs=32, max_new_tokens=6),
    )
    grpo.train()
    grpo.save_model(learned)
    print("after GRPO:", success(learned))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
