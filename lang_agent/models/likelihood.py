"""How likely texts are under a policy's language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.trie import NO_PHRASES


def language_loss(policy: LanguagePolicy, tokens: Tensor) -> Tensor:
    """The mean negative log-likelihood, in nats, of each token of (B, W) after those before it."""
    rows = tokens.tolist()
    none: list[list[int]] = [[0]] * len(rows)
    layout = lay_out(rows, [0] * len(rows), none, [[NO_PHRASES]] * len(rows), policy.device)
    states = policy.hidden_states(layout).last[:, :-1]  # (B, W - 1, H)
    logits = policy.token_logits(states.flatten(0, 1))
    return nn.functional.cross_entropy(logits, tokens[:, 1:].flatten().to(logits.device))


def text_log_probs(
    policy: LanguagePolicy, prompts: Sequence[str], texts: Sequence[str]
) -> list[float | None]:
    """The mean log-probability, in nats a token, of each text after its prompt; None where there
    is none to judge. What does not fit the context is left out."""
    starts = [policy.encode_prompt(prompt) for prompt in prompts]
    rows = [
        [*start, *policy.encode(text.rstrip())][: policy.context]
        for start, text in zip(starts, texts, strict=True)
    ]
    none: list[list[int]] = [[0]] * len(rows)
    layout = lay_out(rows, [0] * len(rows), none, [[NO_PHRASES]] * len(rows), policy.device)
    states = policy.hidden_states(layout).last
    means: list[float | None] = []
    for row, start, state in zip(rows, starts, states, strict=True):
        if len(row) <= len(start):
            means.append(None)
            continue
        log_probs = policy.token_logits(state[len(start) - 1 : len(row) - 1]).log_softmax(-1)
        said = torch.tensor(row[len(start) :], device=log_probs.device)
        means.append(log_probs.gather(1, said[:, None]).mean().item())
    return means
