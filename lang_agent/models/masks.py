"""What each layer's tokens attend to, where the tokens are not one plain sequence.

A transformers model says which earlier tokens a layer sees (all of them, those within a window,
those of the same chunk) as a function of two positions, and asks its attention's mask function to
make a mask of it. In a token trie, and in a cache of rows of different lengths, a token's place in
the tensors is not its position in the text. So while a layout is read, the question is answered
here: about the tokens' positions, and hiding what is no ancestor of theirs (Layout.seen).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionMaskInterface
from transformers.masking_utils import (
    causal_mask_function,
    eager_mask,
    sdpa_mask,
    sliding_window_causal_mask_function,
)
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from lang_agent.models import attention
from lang_agent.models.phrase_scoring import Layout


@dataclass(frozen=True, eq=False)
class _Reading:
    layout: Layout
    keys: int  # columns of the mask
    plain: bool  # rows that are one sequence each, without a cache
    dtype: torch.dtype

    def mask(self, sees: Callable[..., Any]) -> Tensor:
        """(B, 1, W, keys) to add to attention scores: 0 where a token attends, -inf elsewhere.
        ``sees`` is the model's function of batch, head, query and key positions."""
        seen = self.layout.seen(self.keys)[:, None]
        if sees is not causal_mask_function:  # the layout is causal already
            batch = torch.arange(len(seen), device=seen.device)[:, None, None, None]
            query = self.layout.position[:, None, :, None]
            key = self.layout.key_position(self.keys)[:, None, None, :]
            seen = seen & sees(batch, torch.zeros_like(batch), query, key)
        hidden = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device)
        return hidden.masked_fill_(~seen, -torch.inf)


_READING: ContextVar[_Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading(layout: Layout, keys: int, dtype: torch.dtype, *, plain: bool) -> Iterator[None]:
    """While this layout is read, attention sees what it says. ``plain``: every row is one sequence
    from its beginning; ``dtype``: of the attention's scores."""
    token = _READING.set(_Reading(layout, keys, plain, dtype))
    try:
        yield
    finally:
        _READING.reset(token)


def _answering(usual: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """A mask function that asks the layout that is read, or else answers as ``usual``."""

    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        now = _READING.get()
        if now is None:
            return usual(*args, **kwargs)
        window = kwargs.get("local_size")
        may_skip = usual is sdpa_mask and kwargs.get("allow_is_causal_skip", True)
        if now.plain and may_skip and (window is None or window > now.keys):
            return None  # the attention itself is causal; padding is on the right
        sees = kwargs["mask_function"]
        config = kwargs.get("config")
        if getattr(config, "model_type", None) != "gpt_neo":
            return now.mask(sees)
        local = sliding_window_causal_mask_function(config.window_size)  # type: ignore[union-attr]
        return torch.cat((now.mask(sees), now.mask(local)), dim=1)

    return mask


AttentionMaskInterface.register(attention.NAME, _answering(sdpa_mask))
AttentionMaskInterface.register("sdpa", _answering(sdpa_mask))  # of models that know no other
AttentionMaskInterface.register("eager", _answering(eager_mask))


class TwoMaskAttention(GPTNeoSelfAttention):
    """GPT-Neo's attention, whose local layers keep their window to themselves, as a function of the
    tokens' places: here it takes two masks (B, 2, W, keys), of its global and its local layers."""

    def _attn(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if attention_mask is None or attention_mask.shape[1] == 1:
            return super()._attn(query, key, value, attention_mask)
        own = int(self.attention_type == "local")
        scores = query.float() @ key.float().transpose(-1, -2) + attention_mask[:, own : own + 1]
        weights = scores.softmax(-1).to(value.dtype)
        return weights @ value, weights


def has_own_window(module: nn.Module) -> bool:
    """Whether plain passes of the module hide by a window in its buffer ``bias``."""
    return isinstance(module, TwoMaskAttention) and module.attention_type == "local"


def take_two_masks(module: nn.Module) -> None:
    """Make GPT-Neo's attention a :class:`TwoMaskAttention`."""
    if type(module) is GPTNeoSelfAttention:
        module.__class__ = TwoMaskAttention
