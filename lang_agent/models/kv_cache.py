"""A key-value cache for rows of different lengths that grow at different rates.

A row is one running episode. Its keys fill its slots from 0 on, without gaps; what lies beyond its
length is left over from padding or from phrases that were only considered, is hidden by the mask,
and is written over by the row's next tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Cache

from lang_agent.models.precision import computed_in

GROWTH = 64  # slots: the first capacity, which doubles whenever it is outgrown


class RaggedCache(Cache):
    """Keys and values of ``rows`` rows, (rows, slots, heads, head size) for each layer.

    Before a forward pass :meth:`aim` says which rows take part and which slots their new tokens
    fill; the model's layers then store into and read from the cache through :meth:`update`.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(layers=[])
        self.rows = rows
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._aimed: tuple[Tensor | slice, Tensor, Tensor, int] | None = None

    def aim(self, rows: Tensor, slots: Tensor) -> int:
        """Choose ``rows`` (B,) and the ``slots`` (B, W) to fill; returns the keys then in view."""
        in_view = int(slots.max()) + 1
        first = torch.arange(len(rows), device=rows.device)
        picked = slice(0, len(rows)) if torch.equal(rows, first) else rows  # a slice is no copy
        self._aimed = (picked, rows[:, None], slots, in_view)
        return in_view

    def copy(self, source: int, row: int, length: int) -> None:
        """Give ``row`` the first ``length`` keys and values of the row ``source``."""
        for held in (*self._keys, *self._values):
            held[row, :length] = held[source, :length]

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor]:
        """Store (B, heads, W, size) and return all keys and values in view of the aimed rows."""
        assert self._aimed is not None, "aim() comes before the forward pass"
        # What attention is computed in: models that rotate keys hand them over in float32.
        key_states = key_states.to(computed_in(key_states))
        value_states = value_states.to(computed_in(value_states))
        picked, row, slots, in_view = self._aimed
        while len(self._keys) <= layer_idx:
            self._keys.append(key_states.new_zeros(self.rows, 0, *_sizes(key_states)))
            self._values.append(value_states.new_zeros(self.rows, 0, *_sizes(value_states)))
        out = []
        for store, states in ((self._keys, key_states), (self._values, value_states)):
            held = store[layer_idx]
            if held.shape[1] < in_view:
                capacity = max(-(-in_view // GROWTH) * GROWTH, 2 * held.shape[1])
                larger = held.new_zeros(self.rows, capacity, *held.shape[2:])
                larger[:, : held.shape[1]] = held
                store[layer_idx] = held = larger
            held[row, slots] = states.transpose(1, 2)
            out.append(held[picked, :in_view].transpose(1, 2))
        return out[0], out[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self._aimed is None else self._aimed[3]

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a mask has, and which is the first."""
        return self.get_seq_length(), 0


def _sizes(states: Tensor) -> tuple[int, int]:
    return states.shape[1], states.shape[3]
