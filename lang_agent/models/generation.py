"""Writing free text, a token at a time, with the log-probabilities of what was written."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.models.kv_cache import RaggedCache
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.sampling import sample, token_log_probs
from lang_agent.models.trie import NO_PHRASES
from lang_agent.seeding import derive

if TYPE_CHECKING:
    from lang_agent.models.policy import LanguagePolicy

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
    draws: Sequence[random.Random],
) -> list[Written]:
    """Continue B token rows until each is finished, has ``max_new_tokens`` or fills the context.

    Afterwards the cache holds each row and what was written but its last token. Rows that finish
    leave the batch, some at a time; the others are not computed again.

    Args:
        slots: the cache's row of each of the B.
        rows: the tokens of each that are not in the cache yet, at least one.
        starts: how many are.
        finished: whether row b is done once its text reads so; asked after the tokens in ``stops``.
        draws: the stream of random numbers of each row.
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
        states = policy.hidden_states(layout, cache, where, decisions_only=True)
        if turn == 0:
            for record, value in zip(written, policy.values(states, layout).tolist(), strict=True):
                record.value = value
        logits = policy.token_logits(states.last[layout.decision_row, layout.decision_column])
        log_probs = token_log_probs(logits, decide)  # (B, V)
        uniforms = [0.0 if at in done else draws[at].random() for at in active]
        tokens = sample(log_probs, decide.temperature, uniforms)
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


def generate(
    policy: LanguagePolicy,
    prompts: Sequence[str],
    *,
    stop: str | None = "\n",
    seed: int = 0,
    **options: Any,
) -> list[str]:
    """Free text after each of B prompts.

    Args:
        stop: a text ends before this string, or at one of the model's end tokens.
        seed: of the draws; each prompt has a stream of its own.
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
        draws=[random.Random(derive(seed, "text", row)) for row in range(len(rows))],
    )
    texts = [record.text.strip() for record in written]
    return [text.split(stop)[0].rstrip() if stop is not None else text for text in texts]
