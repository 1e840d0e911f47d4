"""Drawing from a distribution: tokens of a vocabulary, or phrases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lang_agent.models.decide import DecideConfig


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


def sample(log_probs: Tensor, temperature: float, uniforms: Sequence[float]) -> Tensor:
    """(B,) indices drawn from (B, A) log-probabilities, which hold the temperature already unless
    it is 0: that takes the most likely.

    Args:
        uniforms: (B,) random numbers in [0, 1), one for each row: its index is where the cumulated
            probabilities pass it.
    """
    if temperature == 0:
        return log_probs.argmax(dim=1)
    drawn = torch.tensor(uniforms, dtype=torch.double, device=log_probs.device)[:, None]
    cumulated = log_probs.exp().cumsum(dim=1, dtype=torch.double)
    found = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True)
    return found.squeeze(1)
