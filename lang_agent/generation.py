"""Writing free text, a token at a time, with the log-probabilities of what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lang_agent.action_tree import build_tree
from lang_agent.cache import RaggedCache
from lang_agent.policy import LanguagePolicy
from lang_agent.scoring import lay_out

NO_PHRASES = build_tree([])


@dataclass
class Written:
    """What was written after one prompt."""

    token_ids: list[int] = field(default_factory=list)  # L, the one that ended it included
    log_probs: list[float] = field(default_factory=list)  # L, of the distribution drawn from
    text: str = ""  # of all tokens but an end-of-text one
    value: float = 0.0  # the value head's, at the prompt's last token


@torch.no_grad()
def write(
    policy: LanguagePolicy,
    cache: RaggedCache,
    slots: Sequence[int],
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    finished: Callable[[int, str], bool],
    generator: torch.Generator,
) -> list[Written]:
    """Continue B token rows until each is finished, has ``max_new_tokens`` or fills the context.

    Afterwards the cache holds each row and what was written but its last token. Rows that finish
    leave the batch; the others are not computed again.

    Args:
        slots: the cache's row of each of the B.
        rows: the tokens of each that are not in the cache yet, at least one.
        starts: how many are.
        temperature: of the draws; 0 takes the most likely token.
        finished: whether row b is done once its text reads so.
    """
    written = [Written() for _ in rows]
    feeds = [list(row) for row in rows]
    lengths = list(starts)
    active = list(range(len(rows)))
    for turn in range(max_new_tokens):
        layout = lay_out(
            [feeds[at] for at in active],
            [lengths[at] for at in active],
            [[len(feeds[at]) - 1] for at in active],
            [[NO_PHRASES] for _ in active],
            policy.device,
        )
        where = torch.tensor([slots[at] for at in active], device=policy.device)
        states = policy.hidden_states(layout, cache, where)
        if turn == 0:
            for record, value in zip(written, policy.values(states, layout).tolist(), strict=True):
                record.value = value
        logits = policy.token_logits(states.last[layout.decision_row, layout.decision_column])
        log_probs = torch.log_softmax(logits / (temperature or 1.0), dim=-1)  # (B, V)
        tokens = sample(log_probs, temperature, generator)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        going = []
        for at, token, log_prob in zip(active, tokens.tolist(), chosen, strict=True):
            record = written[at]
            record.token_ids.append(token)
            record.log_probs.append(log_prob)
            lengths[at] += len(feeds[at])
            feeds[at] = [token]
            if token == policy.tokenizer.eos_token_id:
                continue
            record.text = str(policy.tokenizer.decode(record.token_ids))
            if lengths[at] + 1 < policy.context and not finished(at, record.text):
                going.append(at)
        active = going
        if not active:
            break
    return written


def generate(
    policy: LanguagePolicy,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    temperature: float = 1.0,
    stop: str | None = "\n",
    generator: torch.Generator | None = None,
) -> list[str]:
    """Free text after each of B prompts.

    Args:
        max_new_tokens: the most to write; the context may set a lower limit.
        temperature: of the draws; 0 takes the most likely token.
        stop: a text ends before this string, or at the end-of-text token.
        generator: of the draws; seeded with 0 unless given.
    """
    rows = [policy.encode_prompt(prompt) for prompt in prompts]
    for row in rows:
        policy.check_fits(len(row), ("x",))
    written = write(
        policy,
        RaggedCache(len(rows)),
        range(len(rows)),
        rows,
        [0] * len(rows),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        finished=lambda _, text: stop is not None and stop in text.lstrip(),
        generator=generator or torch.Generator().manual_seed(0),
    )
    texts = [record.text.strip() for record in written]
    return [text.split(stop)[0].rstrip() if stop is not None else text for text in texts]


def sample(log_probs: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(B,) indices drawn from (B, A) log-probabilities, which hold the temperature already unless
    it is 0: that takes the most likely."""
    if temperature == 0:
        return log_probs.argmax(dim=1)
    return (
        torch.multinomial(log_probs.exp().cpu(), 1, generator=generator)
        .squeeze(1)
        .to(log_probs.device)
    )
