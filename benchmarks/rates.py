"""Decisions a second of acting and learning, and how much of the device's limit that is.

    python benchmarks/rates.py                     # a GPU where there is one: under four minutes
    python benchmarks/rates.py --models nano --envs 8 --steps 8       # a quick look

For ``nano``, GPT-2 small and a model of SmolLM2-135M's shape, random weights all, in bf16 where the
device is fast at it. Acting is in transcripts, all worlds at once on one processor core; learning
is PPO's gradient step on whole episodes, AdamW included. The limit is the products of the layers'
matrices for the tokens that are read (three times as many where they are learned), at the rate of
one large product measured in the same run; attention, the head and all else count as nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.cli.bench import _flops, _play, _record, gpt2
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.steps import gradient_step
from lang_agent.models.device import find_device
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.precision import matmul_rate


def smollm2_like(device: torch.device) -> LanguagePolicy:
    """A model of SmolLM2-135M's shape (its config.json on the hub), with random weights."""
    tokenizer = gpt2(1, 64, 1, torch.device("cpu")).tokenizer
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return LanguagePolicy(LlamaForCausalLM(config), tokenizer).to(device)


MODELS: dict[str, Callable[[torch.device], LanguagePolicy]] = {
    "nano": lambda device: LanguagePolicy.from_scratch("nano", seed=0).to(device),
    "gpt2-small": lambda device: gpt2(12, 768, 12, device),
    "smollm2-135m": smollm2_like,
}


class TimedAgent(PolicyAgent):
    """Counts the seconds in which the model is asked, apart from those of the worlds."""

    seconds = 0.0

    def act(self, slots, observations):
        began = time.perf_counter()
        decisions = super().act(slots, observations)  # which end with numbers on the processor
        self.seconds += time.perf_counter() - began
        return decisions


def acting(policy: LanguagePolicy, envs: int, steps: int) -> tuple[float, float, float]:
    """Decisions a second with and without the worlds' time, and products a second of the model."""
    _play(PolicyAgent(policy, envs), "transcript", envs, 2)  # warms up
    agent = TimedAgent(policy, envs)
    episodes, seconds = _play(agent, "transcript", envs, steps)
    decisions = sum(len(episode.steps) for episode in episodes)
    tokens = sum(len(episode.steps[-1].trace.context) for episode in episodes)
    rate = _flops(policy, tokens) / agent.seconds
    return decisions / seconds, decisions / agent.seconds, rate


def learning(policy: LanguagePolicy, envs: int, steps: int) -> tuple[float, float]:
    """Decisions a second, and products a second."""
    samples = _record(policy, "transcript", envs, steps)
    learner = Learner(policy, optimizer=Optimizer(policy, "adamw", 1e-4, 0.0))
    gradient_step(learner, samples)  # warms up
    began, rounds = time.perf_counter(), 3
    for _ in range(rounds):  # its norm is a number on the processor: nothing is left to wait for
        gradient_step(learner, samples)
    if policy.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / rounds
    tokens = sum(len(sample.token_ids) for sample in samples)
    decisions = sum(len(sample.columns) for sample in samples)
    return decisions / seconds, 3 * _flops(policy, tokens) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--envs", type=int, default=64, help="that are played at once")
    parser.add_argument("--steps", type=int, default=24, help="of each episode")
    parser.add_argument("--device")
    args = parser.parse_args()
    device = find_device(args.device)
    side = 8192 if device.type == "cuda" else 2048
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"
    print(f"{name}, torch {torch.__version__}; {args.envs} episodes of {args.steps} steps")
    for model in args.models:
        policy = MODELS[model](device)
        policy.set_precision("bf16" if device.type == "cuda" else "auto")
        limit = matmul_rate(device, policy.precision, (side, side, side), 1.0)
        whole, asked, acted = acting(policy, args.envs, args.steps)
        print(
            f"{model:<14}acts   {whole:8.0f} decisions a second, {asked:8.0f} without the worlds: "
            f"{acted / limit:.4f} of the limit",
            flush=True,
        )
        learned, products = learning(policy, args.envs, args.steps)
        print(
            f"{model:<14}learns {learned:8.0f} decisions a second, {products / 1e12:.2f} TFLOP/s: "
            f"{products / limit:.4f} of the limit of {limit / 1e12:.1f}",
            flush=True,
        )
        del policy
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
