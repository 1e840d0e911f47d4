"""The commands ``lang-agent generate`` and ``lang-agent pretrain``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro

from lang_agent.cli.console import as_text, say
from lang_agent.cli.options import Count, Seed, Threads
from lang_agent.errors import LangAgentError
from lang_agent.ranges import Range, check_ranges


@dataclass(frozen=True)
class Generate:
    """`generate`'s options."""

    prompts: tyro.conf.Positional[tuple[str, ...]]
    """What to go on from."""
    model: str = "smollm2"
    """A run or model folder, or a hub id."""
    count: Annotated[int, Range(1, 10_000)] = 1
    """Texts for each prompt."""
    max_new_tokens: Count = 32
    """The most to write for one text."""
    temperature: Annotated[float, Range(0, 1000)] = 1.0
    """0.001 or more; 0 takes the most likely token each time (greedy)."""
    beams: Annotated[int, Range(1, 1000)] = 1
    """Beam search with so many; for temperature 0."""
    top_k: Annotated[int, Range(0, 10**9)] = 0
    """Draw from the k most likely tokens; 0 for all."""
    top_p: Annotated[float, Range(high=1, above=0)] = 1.0
    """Draw from the most likely tokens that have this probability together (nucleus)."""
    min_p: Annotated[float, Range(0, 1)] = 0.0
    """Leave out tokens below this part of the most likely one's probability."""
    repetition_penalty: Annotated[float, Range(0.01, 100)] = 1.0
    """Above 1: make tokens that were there before less likely."""
    seed: Seed = 0
    """Of what is drawn."""
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    chat: bool | None = None
    """Whether a prompt is a message in the tokenizer's chat template; by default as the policy
    was trained, and for any other model where it has a template."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if 0 < self.temperature < 0.001:
            raise LangAgentError(
                f"temperature={self.temperature} is too low to draw with: 0 takes the most likely."
            )
        if not self.prompts:
            raise LangAgentError("There is no prompt to go on from.")
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
    """A new GPT-2 (pico, nano, mini, micro or small), a run or model folder, or a hub id."""
    steps: Count = 600
    """Optimizer steps."""
    batch: Annotated[int, Range(1, 100_000)] = 32
    """Stretches of text in a step."""
    context: Annotated[int, Range(1, 1_000_000)] = 64
    """Tokens in a stretch."""
    learning_rate: Annotated[float, Range(high=1000, above=0)] = 2e-3
    """At the beginning; it falls to 0."""
    seed: Seed = 0
    """Of a new model's weights and of the stretches drawn."""
    threads: Threads | None = None
    """Processor threads of torch; by default one for a small model."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""
    trust: bool = False
    """Import what the policy's configuration names, wherever it lies: a stranger's can run
    anything."""

    def __post_init__(self) -> None:
        check_ranges(self)


def generate(args: Generate) -> None:
    """Write on from a prompt."""
    for prompt in args.prompts:
        asked = as_text(prompt)
        for text in continuations(args, asked):
            say((asked, "dim"), text)


def continuations(args: Generate, prompt: str) -> list[str]:
    """``count`` texts after a prompt, by transformers' own decoding."""
    import torch

    from lang_agent.models.device import find_device
    from lang_agent.models.store import load_policy
    from lang_agent.models.threads import use_threads

    where = str(find_device(args.device))
    policy = load_policy(args.model, device=where, chat=args.chat, trust=args.trust)
    use_threads(args.threads, policy, policy.device)
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
    from lang_agent.train.pretrain import pretrain as learn

    learn(**asdict(args), say=say)
    say((args.out, "bold"))
