"""GPT-2's feed-forward layer with its first product and activation in one operation, for acting.

oneDNN computes GELU while a product's result is still in the processor's cache; in bf16 torch
on its own spends up to as long as the product takes on it once more. The operation is torch's, the
one that `torch.compile` emits for processors, and it has no gradient: learning takes the ordinary
way. So does float32, where torch's products are MKL's: oneDNN's are slower than those with their
GELU for few rows, and up to ten times slower for GPT-2's width on processors without AVX-512
(`benchmarks/precision.py`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.pytorch_utils import Conv1D

from lang_agent.models.precision import computed_in

APPROXIMATIONS = {type(ACT2FN["gelu_pytorch_tanh"]): "tanh", type(ACT2FN["gelu"]): "none"}
"""How torch's GELU approximates the normal distribution, by activation."""


class FusedMLP(GPT2MLP):
    """A ``GPT2MLP`` with GELU; parameters and results are the same."""

    def forward(self, hidden_states: Any) -> Tensor:
        dtype = computed_in(hidden_states)
        approximate = APPROXIMATIONS[type(self.act)]
        plain = type(self.c_fc) is Conv1D  # an adapter's layer in its place adds to the product
        if (
            dtype != torch.bfloat16
            or torch.is_grad_enabled()
            or hidden_states.device.type != "cpu"
            or not plain
            or not works(dtype, *self.c_fc.weight.shape, approximate)
        ):
            return super().forward(hidden_states)
        # Autocast does not know the operation, so its part is done here.
        weight, bias = self.c_fc.weight.to(dtype), self.c_fc.bias.to(dtype)
        return self.c_proj(linear_gelu(hidden_states.to(dtype), weight, bias, approximate))


def fuse(module: nn.Module) -> None:
    """Make a ``GPT2MLP`` with GELU a :class:`FusedMLP`."""
    if type(module) is GPT2MLP and type(module.act) in APPROXIMATIONS:
        module.__class__ = FusedMLP


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, approximate: str = "tanh") -> Tensor:
    """GELU of x @ weight + bias, with (in, out) weights."""
    return torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "gelu", [], approximate)


@lru_cache(maxsize=64)
def works(dtype: torch.dtype, inputs: int, outputs: int, approximate: str = "tanh") -> bool:
    """Whether this build of torch has the operation, and it computes what it should on this
    processor in ``dtype`` for weights of (inputs, outputs)."""
    with torch.no_grad():
        x = torch.linspace(-3, 3, 6 * inputs).view(2, 3, inputs).to(dtype)
        weight = torch.eye(inputs, outputs).to(dtype)
        bias = torch.linspace(-1, 1, outputs).to(dtype)
        expected = nn.functional.gelu(x @ weight + bias, approximate=approximate)
        try:
            found = linear_gelu(x, weight, bias, approximate)
        except (AttributeError, RuntimeError, NotImplementedError):
            return False
        close = torch.finfo(dtype).eps * 16
        return found.shape == expected.shape and torch.allclose(
            found, expected, rtol=close, atol=close
        )
