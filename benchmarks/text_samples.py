"""Rewarding text: samples learned a CPU second, against TRL's GRPOTrainer and a plain torch floor.

All learn by GRPO with the same model (GPT-2 of 4 layers x 256, vocabulary 2000, random weights), 8
prompts of 16 tokens, 8 texts of 32 tokens for each, a trivial reward and one gradient step a
rollout, in turns in one process:

    pip install 'lang_agent[bench]'
    python benchmarks/text_samples.py --threads 1 --json text.json

``floor`` is the same work written by hand, with nothing around it: what a trainer can hope for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.utils import logging

from lang_agent.learn.config import LearnConfig
from lang_agent.models.decide import DecideConfig
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import Trainer

PROMPTS, GENERATIONS, PROMPT, NEW, VOCABULARY = 8, 8, 16, 32, 2000
SAMPLES = PROMPTS * GENERATIONS
RATE = 1e-5


def make_model(folder: Path) -> None:
    """A GPT-2 with random weights, and a tokenizer whose tokens are the words w1, w2, ..."""
    words = {"<end>": 0, **{f"w{number}": number for number in range(1, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>", pad_token="<end>",
        unk_token="<end>",
    )  # fmt: skip
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_layer=4, n_embd=256, n_head=4, n_positions=128,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def prompts() -> list[str]:
    """So many prompts of so many words."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (PROMPTS, PROMPT), generator=draw)
    return [" ".join(f"w{word}" for word in row) for row in ids.tolist()]


def trivial(text: str) -> float:
    """The share of even words."""
    numbers = [int(word[1:]) for word in text.split() if word.startswith("w")]
    return sum(number % 2 == 0 for number in numbers) / max(len(numbers), 1)


def ours(folder: Path, precision: str) -> Iterator[float]:
    """CPU seconds of each step of this package's trainer."""
    with tempfile.TemporaryDirectory() as run:
        config = TrainConfig(
            env="TextGeneration-v0",
            text=TextConfig(env_args=(f"prompts={json.dumps(prompts())}", f"rewards={REWARD}")),
            model=str(folder),
            precision=precision,
            decide=DecideConfig("generate", max_new_tokens=NEW),
            rollout_steps=1,  # the texts under way are finished: all of them, once
            steps=10**9,
            envs=SAMPLES,
            learn=LearnConfig(
                algorithm="grpo",
                group_size=GENERATIONS,
                optimizer="adamw",
                learning_rate=RATE,
                epochs=1,
                minibatch_decisions=SAMPLES,
                entropy_coef=0.0,
                target_kl=None,
                max_grad_norm=1.0,
            ),
        )
        trainer = Trainer(config, Path(run))
        while True:
            started = time.process_time()
            before = trainer.progress.episodes
            trainer._iterate()
            took = time.process_time() - started
            yield took * SAMPLES / (trainer.progress.episodes - before)


REWARD = f"{Path(__file__).stem}:trivial"


def trl(folder: Path, steps: int, **options: Any) -> list[float]:
    """CPU seconds of each step of TRL's GRPOTrainer, the first left out."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            times.append(time.process_time())

    def reward(completions: list[str], **kwargs: Any) -> list[float]:
        return [trivial(text) for text in completions]

    with tempfile.TemporaryDirectory() as run:
        config = GRPOConfig(
            output_dir=run,
            per_device_train_batch_size=SAMPLES,
            num_generations=GENERATIONS,
            max_completion_length=NEW,
            learning_rate=RATE,
            max_steps=steps + 1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            **options,
        )
        trainer = GRPOTrainer(
            model=GPT2LMHeadModel.from_pretrained(folder),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts()] * 4),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left"),
            callbacks=[Clock()],
        )
        trainer.train()
    return [after - before for before, after in itertools.pairwise(times)]


def floor(folder: Path) -> Iterator[float]:
    """CPU seconds of each step of the same work in plain torch and transformers, in float32."""
    model = GPT2LMHeadModel.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    ids = torch.tensor([tokenizer.encode(prompt) for prompt in prompts()])
    ids = ids.repeat_interleave(GENERATIONS, 0)
    while True:
        started = time.process_time()
        with torch.no_grad():
            written, olds, feed, cache = ids, [], ids, None
            for _ in range(NEW):
                output = model(feed, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = output.past_key_values
                log_probs = output.logits[:, -1].log_softmax(-1)
                feed = torch.multinomial(log_probs.exp(), 1)
                olds.append(log_probs.gather(1, feed))
                written = torch.cat((written, feed), dim=1)
        new, old = written[:, PROMPT:], torch.cat(olds, dim=1)
        texts = tokenizer.batch_decode(new)
        rewards = torch.tensor([trivial(text) for text in texts]).view(PROMPTS, GENERATIONS)
        spread = rewards.std(1, keepdim=True) + 1e-4
        advantages = ((rewards - rewards.mean(1, keepdim=True)) / spread).view(-1, 1)
        logits = model(written[:, :-1], logits_to_keep=NEW).logits
        log_probs = logits.log_softmax(-1).gather(2, new[:, :, None]).squeeze(2)
        ratio = (log_probs - old).exp()
        loss = -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5, help="of each contender in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        running = {
            "ours, fp32": ours(folder, "fp32"),
            "ours, default precision": ours(folder, "auto"),
            "floor, fp32": floor(folder),
        }
        compared: dict[str, Callable[[], list[float]]] = {
            "TRL, fp32": lambda: trl(
                folder, args.steps, bf16=False, gradient_checkpointing=False, logging_steps=10**6
            ),
            "TRL, default settings": lambda: trl(folder, args.steps),
        }
        seconds: dict[str, list[float]] = {name: [] for name in (*running, *compared)}
        for steps in running.values():
            next(steps)  # to warm up
        for _ in range(args.rounds):
            for name, steps in running.items():
                seconds[name] += [next(steps) for _ in range(args.steps)]
            for name, run in compared.items():
                seconds[name] += run()
    rate = {name: SAMPLES / statistics.median(times) for name, times in seconds.items()}
    for name, samples in rate.items():
        print(f"{name:<26}{samples:8.1f} samples a CPU second")
    record: dict[str, float | int] = {
        "text.fp32.over_trl": rate["ours, fp32"] / rate["TRL, fp32"],
        "text.default.over_trl_default": (
            rate["ours, default precision"] / rate["TRL, default settings"]
        ),
        "text.fp32.over_floor": rate["ours, fp32"] / rate["floor, fp32"],
        "threads": args.threads,
    }
    for name, value in record.items():
        print(f"{name:<34}{value:8.2f}")
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
