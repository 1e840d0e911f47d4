"""Attention that leaves out what a causal mask hides anyway.

A mask of our own (token trees, cached rows) makes torch's attention multiply every query with every
key, hidden or not. No query of ours sees a key beyond its own column, so long sequences are cut
into blocks of queries, each with the keys up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lang_agent.precision import computed_in

NAME = "sdpa_in_blocks"
BLOCK = 256  # queries
LEARNING_BLOCK = 128  # of plain products
LONGEST = 1024  # tokens; beyond, their weights take too much memory


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa`` attention, a block of queries at a time.

    Args:
        query: (B, heads, W, size).
        key, value: (B, key heads, keys, size); several heads of queries may share one of theirs.
        attention_mask: (B, 1, W, keys) to add, or bool with True for what is seen; None for plain
            causal attention.

    Returns:
        (B, W, heads, size), and None for the weights.
    """
    dtype = computed_in(query)  # models that rotate queries and keys do it in float32
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    mask = attention_mask
    width, scale = query.shape[2], kwargs.get("scaling") or query.shape[3] ** -0.5
    if key.shape[2] != width:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    if query.requires_grad and width <= LONGEST and _slow_backwards(query):
        if mask is None:
            mask = torch.full((1, 1, width, width), -torch.inf, dtype=query.dtype).triu(1)
        parts = [
            _products(queries, keys, values, hidden, scale)
            for queries, keys, values, hidden in _blocks(query, key, value, mask, LEARNING_BLOCK)
        ]
        return torch.cat(parts, dim=2).transpose(1, 2), None
    if mask is None or width < 2 * BLOCK:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    parts = [
        sdpa_attention_forward(module, *block, **kwargs)[0]
        for block in _blocks(query, key, value, mask, BLOCK)
    ]
    return torch.cat(parts, dim=1), None


def _blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, size: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """So many queries at a time, the keys and values that they may see, and their mask."""
    end = 0
    for queries, hidden in zip(query.split(size, 2), mask.split(size, 2), strict=True):
        end += queries.shape[2]
        yield queries, key[:, :, :end], value[:, :, :end], hidden[..., :end]


def _slow_backwards(query: Tensor) -> bool:
    """Whether torch's fused attention, forwards and backwards, is slower than plain products: on
    processors in bf16, up to four times for short sequences (`benchmarks/precision.py`)."""
    return query.dtype == torch.bfloat16 and query.device.type == "cpu"


def _products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Softmax attention by two batched products: (B, heads, queries, size).

    The queries of all heads that share a head of keys are rows of one product, so that keys and
    values are not copied for each.
    """
    batch, heads, width, _ = query.shape
    key_heads, keys = key.shape[1:3]
    rows = heads // key_heads * width

    def grouped(part: Tensor) -> Tensor:
        return part.reshape(batch * key_heads, rows, -1)

    if mask is None:
        mask = query.new_zeros(())
    elif mask.dtype == torch.bool:
        mask = query.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    bias = grouped(mask.to(query.dtype).expand(batch, heads, width, keys))
    products = torch.baddbmm(bias, grouped(query), key.flatten(0, 1).transpose(1, 2), alpha=scale)
    out = torch.bmm(products.softmax(-1), value.flatten(0, 1))
    return out.view(batch, heads, width, -1)


AttentionInterface.register(NAME, attend)
