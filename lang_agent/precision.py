"""The number format that a device is fastest in, found by measuring."""

from __future__ import annotations

import time
from functools import lru_cache

import torch

from lang_agent.errors import unknown

PRECISIONS = ("auto", "fp32", "bf16")
WORTH_IT = 1.5  # how much faster bf16 must be before its rounding is accepted


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What models compute in on ``device``: as named, or "auto" for what is fast there."""
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        ratio = matmul_rate(device, torch.bfloat16) / matmul_rate(device, torch.float32)
        return torch.bfloat16 if ratio >= WORTH_IT else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


@lru_cache(maxsize=16)
def matmul_rate(
    device: torch.device,
    dtype: torch.dtype,
    shape: tuple[int, int, int] = (512, 768, 768),
    seconds: float = 0.02,
) -> float:
    """Floating-point operations a second of (m, k) @ (k, n) products on ``device``: the fastest
    of at least three, after one to warm up."""
    m, k, n = shape
    left = torch.ones(m, k, device=device, dtype=dtype)
    right = torch.ones(k, n, device=device, dtype=dtype)
    left @ right
    fastest, spent, count = float("inf"), 0.0, 0
    while count < 3 or spent < seconds:
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        took = time.perf_counter() - started
        fastest, spent, count = min(fastest, took), spent + took, count + 1
    return 2 * m * k * n / fastest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
