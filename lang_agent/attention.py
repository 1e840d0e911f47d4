"""Attention that leaves out what a causal mask hides anyway.

A mask of our own (token trees, cached rows) makes torch's attention multiply every query with every
key, hidden or not. No query of ours sees a key beyond its own column, so long sequences are cut
into blocks of queries, each with the keys up to its end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_in_blocks"
BLOCK = 256  # queries


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' ``sdpa`` attention, a block of queries at a time.

    Args:
        query, key, value: (B, heads, W, size), (B, heads, keys, size) twice.
        mask: (B, 1, W, keys), or None for plain causal attention.

    Returns:
        (B, W, heads, size), and None for the weights.
    """
    width = query.shape[2]
    if mask is None or key.shape[2] != width or width < 2 * BLOCK:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    parts, end = [], 0
    for queries, hidden in zip(query.split(BLOCK, 2), mask.split(BLOCK, 2), strict=True):
        end += queries.shape[2]
        keys, values = key[:, :, :end], value[:, :, :end]
        part, _ = sdpa_attention_forward(module, queries, keys, values, hidden[..., :end], **kwargs)
        parts.append(part)
    return torch.cat(parts, dim=1), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
