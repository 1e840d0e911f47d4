"""Muon: steps made orthogonal, in a precision that is chosen (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon).

torch's own Muon orthogonalises in bf16 whatever the weights are. A processor without bf16 emulates
it, at thirty times the time of float32, so the precision is an argument here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.sharding import shared_like, whole

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SMALLEST = 1e-7  # of a norm, so that a gradient of zeros moves nothing


class Muon(torch.optim.Optimizer):
    """Matrices move by an orthogonal matrix near to their gradient's mean.

    For a matrix W (H, W) with gradient G, and the mean B of its late gradients:

        B <- m B + (1 - m) G                                          m = ``MOMENTUM``
        U <- m B + (1 - m) G                                          (Nesterov)
        W <- (1 - lr decay) W - 0.2 lr sqrt(max(H, W)) orthogonal(U)

    The factor 0.2 sqrt(max(H, W)) makes a step as large as AdamW's (Liu et al. 2025, arXiv
    2502.16982, eq. 4), so that one learning rate serves both. This is ``torch.optim.Muon`` with
    ``adjust_lr_fn="match_rms_adamw"``, save for ``precision``; the state has the same names.

    Args:
        matrices: parameters of two dimensions.
        precision: asked at every step for what the orthogonalisation is to compute in; weights
            and state keep their own.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        precision: Callable[[], torch.dtype],
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Any = None, workers: Workers = ALONE) -> None:  # type: ignore[override]
        precision = self.precision()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            # The nearest orthogonal matrix is of the whole, where weights are shared out.
            means = (whole(self._mean(weight)) for weight in weights)
            directions = workers.each(lambda mean: orthogonal(mean, precision), means)
            for weight, direction in zip(weights, directions, strict=True):
                size = 0.2 * math.sqrt(max(weight.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(shared_like(direction, weight), alpha=-group["lr"] * size)

    def _mean(self, weight: Tensor) -> Tensor:
        """The mean of the weight's late gradients, with Nesterov's look ahead."""
        state, gradient = self.state[weight], weight.grad
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(mean, MOMENTUM)


def orthogonal(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """A matrix (H, W) with the singular vectors of ``matrix`` and singular values near 1.

    Five Newton-Schulz steps of a quintic whose slope at 0 is as steep as can be; singular values
    end between 0.7 and 1.2 and not nearer (Jordan et al. 2024). Returned in ``precision``.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide.to(precision)
    x = x / x.norm().clamp(min=SMALLEST)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if wide is not matrix else x
