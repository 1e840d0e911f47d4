"""Supervised warm-up: a model that writes, learned from a file of text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lang_agent.errors import LangAgentError
from lang_agent.files import lines_of, read_text, try_place
from lang_agent.learn.optimizer import Optimizer
from lang_agent.models.device import find_device
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.likelihood import language_loss
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.store import load_policy, save_whole
from lang_agent.models.threads import use_threads
from lang_agent.seeding import derive


def pretrain(
    file: str | Path,
    out: str | Path,
    *,
    model: str = "micro",
    steps: int = 600,
    batch: int = 32,
    context: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    say: Callable[[str], None] = print,
    threads: int | None = None,
    device: str | None = None,
    trust: bool = False,
) -> LanguagePolicy:
    """Learn to go on with the file's text, and save the model to the new folder ``out``.

    Every line is a text of its own, between end-of-text tokens. A twentieth of the lines is held
    out, and its loss is what is reported.

    Args:
        model: a size of ``gpt2.SIZES`` (random weights), a run or model folder, or a hub id.
        trust: as in :func:`load_policy`.
        batch: stretches of text in a step, each of ``context`` tokens.
        threads: processor threads of torch; None: one for a small model.
        device: cpu, cuda; None: a GPU where there is one.
    """
    out, where = Path(out), find_device(device)
    if out.exists() or out.is_symlink():
        raise LangAgentError(f"'{out}' is there already: choose another --out.")
    try_place(out)
    lines = [line for line in lines_of(read_text(file, "the text")) if line.strip()]
    generator = torch.Generator().manual_seed(derive(seed, "pretrain"))
    order = torch.randperm(len(lines), generator=generator).tolist()
    held = len(lines) // 20
    parts = [[lines[at] for at in order[held:]], [lines[at] for at in order[:held]]]
    if model in SIZES:
        policy = LanguagePolicy.from_scratch(model, seed=seed, texts=parts[0], prose=True)
    else:
        policy = load_policy(model, device=str(where), chat=False, trust=trust)
    policy.to(where)
    use_threads(threads, policy, where)
    train, test = (_stream(policy, part) for part in parts)
    if min(len(train), len(test)) <= context:
        raise LangAgentError(
            f"'{file}' is too short: a twentieth of its lines must have more than "
            f"{context} tokens, but has {len(test)}."
        )
    optimizer = Optimizer(policy, "muon", learning_rate, 0.01)
    policy.set_precision("auto")
    for step in range(steps):
        optimizer.set_rate(learning_rate * (1 - step / steps))
        starts = torch.randint(len(train) - context, (batch,), generator=generator).tolist()
        optimizer.zero_grad()
        loss = language_loss(policy, _stretches(train, starts, context))
        if not torch.isfinite(loss):
            raise LangAgentError(
                f"The loss of step {step + 1} is {loss.item()}: use a learning_rate below "
                f"{learning_rate:g}."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % max(steps // 10, 1) == 0:
            heard = held_out_loss(policy, test, context)
            say(f"{step + 1:>6} steps  loss {loss.item():.3f}  held out {heard:.3f}")
    save_whole(policy, out)
    return policy


@torch.no_grad()
def held_out_loss(policy: LanguagePolicy, test: Tensor, context: int) -> float:
    """The loss on at most 64 stretches of the text held out."""
    starts = list(range(0, len(test) - context, context))[:64]
    loss = language_loss(policy, _stretches(test, starts, context)).item()
    return loss if math.isfinite(loss) else float("inf")


def _stream(policy: LanguagePolicy, lines: Sequence[str]) -> Tensor:
    end = int(policy.tokenizer.eos_token_id or 0)
    return torch.tensor([token for line in lines for token in (*policy.encode_prompt(line), end)])


def _stretches(stream: Tensor, starts: Sequence[int], width: int) -> Tensor:
    return torch.stack([stream[start : start + width] for start in starts])
