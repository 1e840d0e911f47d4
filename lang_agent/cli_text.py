"""The commands ``lang-agent generate`` and ``lang-agent pretrain``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import tyro
from rich.console import Console

from lang_agent.config import require
from lang_agent.errors import LangAgentError

console = Console(highlight=False)


@dataclass(frozen=True)
class Generate:
    """`generate`'s options."""

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """What to go on from."""
    policy: str = "smollm2"
    """A run or model folder, or a hub id."""
    count: int = 1
    """Texts for each prompt."""
    max_new_tokens: int = 32
    temperature: float = 1.0
    """0 takes the most likely token each time (greedy)."""
    beams: int = 1
    """Beam search with so many; for temperature 0."""
    top_k: int = 0
    """Draw from the k most likely tokens; 0 for all."""
    top_p: float = 1.0
    """Draw from the most likely tokens that have this probability together (nucleus)."""
    min_p: float = 0.0
    """Leave out tokens below this part of the most likely one's probability."""
    repetition_penalty: float = 1.0
    """Above 1: make tokens that were there before less likely."""
    seed: int = 0
    chat: bool | None = None
    """Whether a prompt is a message in the tokenizer's chat template; unless told, as the policy
    was trained, and for any other model where it has a template."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise LangAgentError("There is no prompt to go on from.")
        require("count", self.count, self.count >= 1, "1 or more")
        require("beams", self.beams, self.beams >= 1, "1 or more")
        require("temperature", self.temperature, self.temperature >= 0, "0 or more")
        require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        require("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1")
        require("top_k", self.top_k, self.top_k >= 0, "0 or more")
        if self.beams > 1 and self.temperature:
            raise LangAgentError("Beam search draws nothing: use --temperature 0 with --beams.")


@dataclass(frozen=True)
class Pretrain:
    """`pretrain`'s options."""

    file: tyro.conf.Positional[str]
    """Plain text."""
    out: str = "pretrained"
    """The new model's folder."""
    model: str = "micro"
    """nano, micro or small (a GPT-2 from random weights), a run or model folder, or a hub id."""
    steps: int = 600
    """Optimizer steps."""
    batch: int = 32
    """Stretches of text in a step."""
    context: int = 64
    """Tokens in a stretch."""
    learning_rate: float = 2e-3
    seed: int = 0


def generate(args: Generate) -> None:
    """Write on from a prompt."""
    for prompt in args.prompts:
        for text in continuations(args, prompt):
            console.print(f"[dim]{prompt}[/dim]{text}", soft_wrap=True)


def continuations(args: Generate, prompt: str) -> list[str]:
    """``count`` texts after a prompt, by transformers' own decoding."""
    import torch

    from lang_agent.checkpoint import load_policy

    policy = load_policy(args.policy, chat=args.chat)
    row = policy.encode_prompt(prompt)
    if len(row) + args.max_new_tokens > policy.context:
        raise LangAgentError(
            f"The prompt's {len(row)} tokens and {args.max_new_tokens} new ones are more than the "
            f"context of {policy.context}."
        )
    drawn = args.temperature > 0
    options: dict[str, Any] = {
        "do_sample": drawn,
        "num_beams": args.beams,
        "max_new_tokens": args.max_new_tokens,
        "repetition_penalty": args.repetition_penalty,
        "num_return_sequences": args.count if drawn else min(args.count, args.beams),
        "eos_token_id": sorted(policy.end_tokens) or None,
        "pad_token_id": min(policy.end_tokens, default=0),
    }
    if drawn:
        options |= {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p}
        options |= {"min_p": args.min_p or None}
    ids = torch.tensor([row], device=policy.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(args.seed)
        model: Any = policy.model
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return [policy.decode(written[len(row) :].tolist()) for written in out]


def pretrain(args: Pretrain) -> None:
    """Teach a model to write, from a file of text."""
    from lang_agent.pretrain import pretrain as learn

    learn(**asdict(args), say=lambda line: console.print(line, markup=False))
    console.print(args.out, style="bold", soft_wrap=True)
