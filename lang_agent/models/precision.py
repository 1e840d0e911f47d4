"""The number format that a device is fastest in, found by measuring."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from lang_agent.errors import unknown

PRECISIONS = ("auto", "fp32", "bf16")
WORTH_IT = 1.5  # how much faster bf16 must be before its rounding is accepted
PROBE = (256, 512, 512)  # small, since a processor that emulates bf16 takes 50 ms for one


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """What models compute in on ``device``: as named, or "auto" for what is fast there.

    "bf16" is right on every device, and slow on processors that emulate it: a fortieth of the speed
    of float32. "auto" never chooses it there.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        return torch.bfloat16 if bf16_speed(device) >= WORTH_IT else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def computed_in(x: Tensor) -> torch.dtype:
    """What products of ``x`` are computed in: autocast's precision where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@lru_cache(maxsize=16)
def bf16_speed(device: torch.device, seconds: float = 0.05) -> float:
    """How many times as fast as in float32 products are in bf16 on ``device``; once a process.

    A busy machine must not change the answer. So the two are measured in turns, the fastest of
    each counts, and on a processor they take one thread: where several wait for one another, it is
    the waiting that would be measured.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        works = [_product(device, dtype, PROBE) for dtype in (torch.float32, torch.bfloat16)]
        fp32, bf16 = fastest_in_turns(works, device, seconds)
    finally:
        torch.set_num_threads(threads)
    return fp32 / bf16


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
    (took,) = fastest_in_turns([_product(device, dtype, shape)], device, seconds, rounds=3)
    return 2 * m * k * n / took


def fastest_in_turns(
    works: list[Callable[[], object]], device: torch.device, seconds: float, rounds: int = 1
) -> list[float]:
    """The fastest time of each of ``works``, which take turns for so many ``seconds`` and at least
    so many ``rounds``, after one to warm up."""
    for work in works:
        work()
    fastest, spent, done = [float("inf")] * len(works), 0.0, 0
    while done < rounds or spent < seconds:
        for index, work in enumerate(works):
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            took = time.perf_counter() - started
            fastest[index], spent = min(fastest[index], took), spent + took
        done += 1
    return fastest


def _product(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> Callable[[], object]:
    m, k, n = shape
    left = torch.ones(m, k, device=device, dtype=dtype)
    right = torch.ones(k, n, device=device, dtype=dtype)
    return lambda: left @ right


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
