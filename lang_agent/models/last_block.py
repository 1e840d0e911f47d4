"""GPT-2's last block, computed for the tokens that are asked about alone.

A decision is read off the last token of its prompt, and off the inner nodes of its phrases' trie.
All layers but the last need the other tokens too, since later layers attend to them; the last one
needs nothing of them but their keys and values. So where only decisions are asked about, its
queries, its projection and its feed-forward layer are computed for the decisions' tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gpt2.modeling_gpt2 import GPT2Block, GPT2Model

from lang_agent.models import attention

PAYS = 0.5  # of a row's tokens: where more of them are asked about, the whole block is computed
_ASKED: ContextVar[Tensor | None] = ContextVar("asked", default=None)


@contextmanager
def asking(asked: Tensor | None) -> Iterator[None]:
    """While a model is read, the last states of the tokens of ``asked`` (B, W) bool are wanted, and
    all others may be anything; None wants all of them."""
    token = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


class LastBlock(GPT2Block):
    """A ``GPT2Block`` whose output is 0 at tokens that are not asked about."""

    def forward(
        self,
        hidden_states: Any,
        past_key_values: Any = None,
        attention_mask: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        asked = _ASKED.get()
        ours = self.attn.config._attn_implementation == attention.NAME
        # Where activations are recomputed, the block is read again when nobody asks any more.
        if asked is None or self.training or not ours:
            return super().forward(hidden_states, past_key_values, attention_mask, *args, **kwargs)
        most = int(asked.sum(1).max())
        if most > PAYS * asked.shape[1]:
            return super().forward(hidden_states, past_key_values, attention_mask, *args, **kwargs)
        columns = asked.int().sort(dim=1, descending=True, stable=True).indices[:, :most]  # (B, K)
        row = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
        attended, _ = self.attn(
            self.ln_1(hidden_states),
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            columns=columns,
            **kwargs,
        )
        states = attended + hidden_states[row, columns]  # (B, K, H)
        states = states + self.mlp(self.ln_2(states))
        own = asked.gather(1, columns)  # (B, K): a row with fewer than the most is filled up
        whole = torch.zeros_like(hidden_states, dtype=states.dtype)
        return whole.index_put((row[own], columns[own]), states[own])


def ask_last_block(model: nn.Module) -> None:
    """Make the last block of a GPT-2 a :class:`LastBlock`."""
    if type(model) is GPT2Model and type(model.h[-1]) is GPT2Block:
        model.h[-1].__class__ = LastBlock
