"""Writing free text, a token at a time, with the log-probabilities of what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lang_agent.action_tree import build_tree
from lang_agent.cache import RaggedCache
from lang_agent.config import GENERATE, DecideConfig
from lang_agent.policy import LanguagePolicy
from lang_agent.scoring import lay_out

NO_PHRASES = build_tree([])
LEAVE = 0.2  # of the rows at a time: picking the others' keys out of the cache copies them


@dataclass
class Written:
    """What was written after one prompt."""

    token_ids: list[int] = field(default_factory=list)  # L, the one that ended it included
    log_probs: list[float] = field(default_factory=list)  # L, of the distribution drawn from
    text: str = ""  # of all tokens but special ones and one that ended it
    value: float = 0.0  # the value head's, at the prompt's last token


@torch.no_grad()
def write(
    policy: LanguagePolicy,
    cache: RaggedCache,
    slots: Sequence[int],
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    decide: DecideConfig,
    *,
    finished: Callable[[int, str], bool],
    stops: frozenset[int],
    generator: torch.Generator,
) -> list[Written]:
    """Continue B token rows until each is finished, has ``max_new_tokens`` or fills the context.

    Afterwards the cache holds each row and what was written but its last token. Rows that finish
    leave the batch, some at a time; the others are not computed again.

    Args:
        slots: the cache's row of each of the B.
        rows: the tokens of each that are not in the cache yet, at least one.
        starts: how many are.
        finished: whether row b is done once its text reads so; asked after the tokens in ``stops``.
    """
    written = [Written() for _ in rows]
    feeds = [list(row) for row in rows]
    lengths = list(starts)
    active = list(range(len(rows)))
    done: set[int] = set()  # of the active: they read their last token again until they leave
    ends = policy.end_tokens
    for turn in range(decide.max_new_tokens):
        layout = lay_out(
            [feeds[at] for at in active],
            [lengths[at] for at in active],
            [[len(feeds[at]) - 1] for at in active],
            [[NO_PHRASES]] * len(active),
            policy.device,
        )
        where = torch.tensor([slots[at] for at in active], device=policy.device)
        states = policy.hidden_states(layout, cache, where)
        if turn == 0:
            for record, value in zip(written, policy.values(states, layout).tolist(), strict=True):
                record.value = value
        logits = policy.token_logits(states.last[layout.decision_row, layout.decision_column])
        log_probs = token_log_probs(logits, decide)  # (B, V)
        tokens = sample(log_probs, decide.temperature, generator)
        chosen = log_probs.gather(1, tokens[:, None]).squeeze(1).tolist()
        for at, token, log_prob in zip(active, tokens.tolist(), chosen, strict=True):
            if at in done:
                continue
            record = written[at]
            record.token_ids.append(token)
            record.log_probs.append(log_prob)
            lengths[at] += len(feeds[at])
            feeds[at] = [token]
            over = token in ends or lengths[at] + 1 >= policy.context
            if not over and token in stops:
                over = finished(at, policy.decode(record.token_ids))
            if over:
                done.add(at)
        if len(done) >= LEAVE * len(active):
            active = [at for at in active if at not in done]
            done.clear()
        if not active:
            break
    for record in written:
        kept = record.token_ids[:-1] if record.token_ids[-1] in ends else record.token_ids
        record.text = policy.decode(kept)
    return written


def token_log_probs(logits: Tensor, decide: DecideConfig, chosen: Tensor | None = None) -> Tensor:
    """(N, V) log-probabilities of the distribution that tokens are drawn from.

    Temperature comes first, then what ``top_k``, ``top_p`` (Holtzman et al. 2020, arXiv 1904.09751)
    and ``min_p`` (Nguyen et al. 2024, arXiv 2407.01082) leave, each judged by the tempered
    distribution as a whole; -inf for the rest.

    Args:
        logits: (N, V).
        chosen: (N,) tokens that were drawn already. They count as left even where the policy has
            moved since, so that what is learned stays finite.
    """
    log_probs = torch.log_softmax(logits / (decide.temperature or 1.0), dim=-1)
    if not decide.top_k and decide.top_p == 1.0 and not decide.min_p:
        return log_probs
    ordered, order = log_probs.detach().sort(dim=-1, descending=True)
    left = torch.ones_like(ordered, dtype=torch.bool)
    if decide.top_k:
        left[:, decide.top_k :] = False
    probs = ordered.exp()
    left &= probs.cumsum(-1) - probs < decide.top_p
    left &= probs >= decide.min_p * probs[:, :1]
    kept = torch.zeros_like(left).scatter(1, order, left)
    if chosen is not None:
        kept = kept.scatter(1, chosen[:, None], True)
    return log_probs.masked_fill(~kept, -torch.inf).log_softmax(-1)


def generate(
    policy: LanguagePolicy,
    prompts: Sequence[str],
    *,
    stop: str | None = "\n",
    generator: torch.Generator | None = None,
    **options: Any,
) -> list[str]:
    """Free text after each of B prompts.

    Args:
        stop: a text ends before this string, or at one of the model's end tokens.
        generator: of the draws; seeded with 0 unless given.
        options: of :class:`DecideConfig`: max_new_tokens, temperature (0 takes the most likely
            token), top_k, top_p, min_p.
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
        DecideConfig(GENERATE, **options),
        finished=lambda _, text: stop is not None and stop in text.lstrip(),
        stops=policy.tokens_with(stop[-1]) if stop else frozenset(),
        generator=generator or torch.Generator().manual_seed(0),
    )
    texts = [record.text.strip() for record in written]
    return [text.split(stop)[0].rstrip() if stop is not None else text for text in texts]


def sample(log_probs: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """(B,) indices drawn from (B, A) log-probabilities, which hold the temperature already unless
    it is 0: that takes the most likely."""
    if temperature == 0:
        return log_probs.argmax(dim=1)
    # One number a row against the cumulated probabilities: torch.multinomial draws one an entry.
    drawn = torch.rand(len(log_probs), 1, generator=generator).to(log_probs.device)
    cumulated = log_probs.exp().cumsum(dim=1, dtype=torch.double)
    found = torch.searchsorted(cumulated, drawn.double() * cumulated[:, -1:], right=True)
    return found.squeeze(1)
