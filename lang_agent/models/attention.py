"""Attention that leaves out what a causal mask hides anyway.

A mask of our own (token tries, cached rows) makes torch's attention multiply every query with every
key, hidden or not. No query of ours sees a key beyond its own column, so long sequences are cut
into blocks of queries, each with the keys up to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lang_agent.models.precision import computed_in

NAME = "sdpa_in_blocks"
BLOCK = 256  # queries
LONG = 512  # queries: torch's fused attention pays from here on in bf16 (`benchmarks/precision.py`)
CACHED = 2**19  # scores that stay near the processor from one operation to the next


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    columns: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa`` attention, a block of queries at a time.

    Args:
        query: (B, heads, W, size).
        key, value: (B, key heads, keys, size); several heads of queries may share one of theirs.
        attention_mask: (B, 1, W, keys) to add, or bool with True for what is seen; None for plain
            causal attention.
        columns: (B, K) the queries that are wanted, of W; None for all.

    Returns:
        (B, W, heads, size), or of K queries, and None for the weights.
    """
    dtype = computed_in(query)  # models that rotate queries and keys do it in float32
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    mask, scale = attention_mask, kwargs.get("scaling") or query.shape[3] ** -0.5
    if columns is not None:
        query, mask = _picked(query, mask, key.shape[2], columns)
        if query.requires_grad and _slow_backwards(query):
            return _products(query, key, value, mask, scale).transpose(1, 2), None
    width = query.shape[2]
    if key.shape[2] != width:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    if query.requires_grad and _slow_backwards(query):
        return _products(query, key, value, mask, scale).transpose(1, 2), None
    if mask is None or width < 2 * BLOCK:
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    parts = [
        sdpa_attention_forward(module, *block, **kwargs)[0]
        for block in _blocks(query, key, value, mask)
    ]
    return torch.cat(parts, dim=1), None


def _picked(
    query: Tensor, mask: Tensor | None, keys: int, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """The queries at ``columns`` (B, K), as (B, heads, K, size), and their (B, 1, K, keys) mask."""
    at = columns[:, None, :, None]
    query = query.gather(2, at.expand(-1, query.shape[1], -1, query.shape[3]))
    if mask is not None:
        return query, mask.expand(len(columns), -1, -1, -1).gather(2, at.expand(-1, -1, -1, keys))
    hidden = torch.arange(keys, device=columns.device) > at
    zeros = torch.zeros(hidden.shape, dtype=query.dtype, device=columns.device)
    return query, zeros.masked_fill_(hidden, -torch.inf)


def _blocks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """So many queries at a time, the keys and values that they may see, and their mask."""
    end = 0
    for queries, hidden in zip(query.split(BLOCK, 2), mask.split(BLOCK, 2), strict=True):
        end += queries.shape[2]
        yield queries, key[:, :, :end], value[:, :, :end], hidden[..., :end]


def _slow_backwards(query: Tensor) -> bool:
    """Whether torch's fused attention, forwards and backwards, is slower than plain products: on
    processors in bf16, for all but long sequences."""
    kind = query.dtype, query.device.type
    return kind == (torch.bfloat16, "cpu") and query.shape[2] < LONG


def _products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Softmax attention by two batched products: (B, heads, queries, size)."""
    batch, heads, width, _ = query.shape
    key_heads, keys = key.shape[1:3]

    def grouped(part: Tensor) -> Tensor:
        return part.reshape(batch * key_heads, -1, part.shape[3])

    if mask is None:
        mask = torch.full((width, keys), -torch.inf).triu(1)
    elif mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
    mask = mask.float().expand(batch, 1, width, keys)
    with torch.autocast(query.device.type, enabled=False):
        out = _Products.apply(grouped(query), grouped(key), grouped(value), mask, scale)
    return out.view(batch, heads, width, -1)


class _Products(torch.autograd.Function):
    """Softmax attention of G groups of R queries (G, R, size) on K keys (G, K, size), and values,
    which may have a size of their own. The queries of all heads that share a head of keys are one
    group, so that keys and values are not copied for each.

    Scores and their softmax are float32, as in torch's fused operation: in bf16 a score of a
    hundred is off by up to a quarter, and a policy's log-probability by nats. The weights P are
    kept and multiplied in bf16, and so is all of the way back, where the gradient of the scores is
    P (dP - sum(dO O)) (Dao et al. 2022, arXiv 2205.14135, appendix B.2).
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
    ) -> Tensor:
        weights = query.new_empty(*query.shape[:2], key.shape[1])
        out = query.new_empty(*query.shape[:2], value.shape[2])
        for part, rows in _parts(query, key, mask):
            scores = torch.bmm(query[part].float() * scale, key[part].float().transpose(1, 2))
            scores.view(len(mask[rows]), -1, *mask.shape[2:]).add_(mask[rows])
            weights[part] = scores.softmax(-1)
            torch.bmm(weights[part], value[part], out=out[part])
        ctx.save_for_backward(query, key, value, mask, weights, out)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mask, weights, out = ctx.saved_tensors
        of_query, of_key, of_value = map(torch.empty_like, (query, key, value))
        for part, _ in _parts(query, key, mask):
            torch.bmm(weights[part].transpose(1, 2), gradient[part], out=of_value[part])
            of_scores = torch.bmm(gradient[part], value[part].transpose(1, 2))
            sums = (gradient[part].float() * out[part]).sum(-1, keepdim=True)
            of_scores -= sums.to(of_scores.dtype)
            of_scores *= weights[part]
            torch.bmm(of_scores, key[part] * ctx.scale, out=of_query[part])
            torch.bmm(of_scores.transpose(1, 2), query[part] * ctx.scale, out=of_key[part])
        return of_query, of_key, of_value, None, None


def _parts(query: Tensor, key: Tensor, mask: Tensor) -> Iterator[tuple[slice, slice]]:
    """So many groups at a time as have ``CACHED`` scores, and the rows that they are of."""
    groups = len(query) // len(mask)
    few = max(1, CACHED // (groups * query.shape[1] * key.shape[1]))
    for first in range(0, len(mask), few):
        yield slice(first * groups, (first + few) * groups), slice(first, first + few)


AttentionInterface.register(NAME, attend)
