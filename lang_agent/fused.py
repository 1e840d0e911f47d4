"""GPT-2's feed-forward layer with its first product and activation in one operation, for acting.

oneDNN computes tanh-GELU while a product's result is still in the processor's cache; torch on its
own spends up to half of the product's time on it once more. The operation is torch's, the one that
`torch.compile` emits for processors, and it has no gradient: learning takes the ordinary way.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D


class FusedMLP(GPT2MLP):
    """A ``GPT2MLP`` with tanh-GELU; parameters and results are the same."""

    def forward(self, hidden_states: Any) -> Tensor:
        plain = type(self.c_fc) is Conv1D  # an adapter's layer in its place adds to the product
        if torch.is_grad_enabled() or hidden_states.device.type != "cpu" or not plain:
            return super().forward(hidden_states)
        # Autocast does not know the operation, so its part is done here.
        dtype = hidden_states.dtype
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        weight, bias = self.c_fc.weight.to(dtype), self.c_fc.bias.to(dtype)
        return self.c_proj(_linear_gelu(hidden_states.to(dtype), weight, bias))


def fuse(module: nn.Module) -> None:
    """Make a ``GPT2MLP`` with tanh-GELU a :class:`FusedMLP`, where torch has the operation."""
    if type(module) is GPT2MLP and _is_there():
        module.__class__ = FusedMLP


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """tanh-GELU of x @ weight + bias, with (in, out) weights."""
    return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "gelu", [], "tanh")


@lru_cache(maxsize=1)
def _is_there() -> bool:
    """Whether this build of torch has the operation and it computes what it should."""
    x, weight = torch.linspace(-3, 3, 8).view(2, 4), torch.eye(4)
    expected = nn.functional.gelu(x + 0.5, approximate="tanh")
    try:
        found = _linear_gelu(x, weight, torch.full((4,), 0.5))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return torch.allclose(found, expected, atol=1e-5)
