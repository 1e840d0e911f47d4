"""The number format that a device is fastest in, found by measuring."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median

import torch
from torch import Tensor

from lang_agent.errors import unknown

PRECISIONS = ("auto", "fp32", "bf16")
WORTH_IT = 1.5  # how much faster layers must be in bf16: they are a part of the work, and it rounds
PROBE = (256, 512, 512)  # small, since a processor that emulates bf16 takes 50 ms for one
ROWS = 1000  # about as many tokens as a small model's passes have
WIDEST = 512  # that is measured: wider ones gain more from bf16, and take longer to measure
_NEW = itertools.count(1)  # tokens more than ever before in this process: programs are kept
WIDTH = 768  # of a model of which nothing is known: GPT-2 small's


def choose_precision(
    name: str, device: torch.device, width: int = WIDTH, *, acts: bool = True
) -> torch.dtype:
    """What a model of so many hidden units computes in on ``device``: as named, or "auto" for what
    is fast there.

    "bf16" is right on every device, and slow on processors that emulate it: a fortieth of the speed
    of float32. "auto" never chooses it there.

    Args:
        acts: whether the model acts too, and not only learns.
    """
    if name not in PRECISIONS:
        raise unknown("precision", name, PRECISIONS)
    if name == "auto":
        return torch.bfloat16 if bf16_speed(device, width, acts) >= WORTH_IT else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


def computed_in(x: Tensor) -> torch.dtype:
    """What products of ``x`` are computed in: autocast's precision where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


@lru_cache(maxsize=16)
def bf16_speed(
    device: torch.device, width: int = WIDTH, acts: bool = True, seconds: float = 0.05
) -> float:
    """How many times as fast as in float32 a model of so many hidden units has its products in bf16
    on ``device``; measured once a process.

    On a processor oneDNN writes a program for every shape of a product in bf16, which takes
    milliseconds, and what an agent acts on has ever new shapes. So every other layer that is
    measured, forwards and backwards, has a shape that was not met before, about as often as in
    training by one's own play. Batches of what is only learned have few shapes
    (``Layout.filled_up``), and those that come again alone are measured where nothing ``acts``.
    Where bf16 is emulated, which a small product tells, layers are left out.

    A busy machine must not change the answer. So the two are measured in turns, the fastest of
    each counts (of layers the median), and on a processor they take one thread: where several wait
    for one another, it is the waiting that would be measured.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        both = (torch.float32, torch.bfloat16)
        works = [_product(device, dtype, PROBE) for dtype in both]
        fp32, bf16 = fastest_in_turns(works, device, seconds)
        if fp32 > bf16:
            works = [_layers(device, dtype, min(width, WIDEST), new=acts) for dtype in both]
            fp32, bf16 = map(median, in_turns(works, device, seconds, rounds=5))
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
    """The fastest time of each of ``works`` (:func:`in_turns`)."""
    return list(map(min, in_turns(works, device, seconds, rounds)))


def in_turns(
    works: list[Callable[[], object]], device: torch.device, seconds: float, rounds: int = 1
) -> list[list[float]]:
    """The times of each of ``works``, which take turns for so many ``seconds`` and at least so many
    ``rounds``, after one to warm up."""
    for work in works:
        work()
    times: list[list[float]] = [[] for _ in works]
    while len(times[0]) < rounds or sum(map(sum, times)) < seconds:
        for work, found in zip(works, times, strict=True):
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            found.append(time.perf_counter() - started)
    return times


def _product(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, int, int]
) -> Callable[[], object]:
    m, k, n = shape
    left = torch.ones(m, k, device=device, dtype=dtype)
    right = torch.ones(k, n, device=device, dtype=dtype)
    return lambda: left @ right


def _layers(
    device: torch.device, dtype: torch.dtype, width: int, *, new: bool
) -> Callable[[], object]:
    """A layer forwards and backwards, twice: on as many tokens as before, and, with ``new``, on
    another number."""
    tokens = torch.ones(2 * ROWS, width, device=device, dtype=dtype, requires_grad=True)
    weights = torch.ones(width, 4 * width, device=device, dtype=dtype, requires_grad=True)

    def compute() -> None:
        for count in (ROWS, ROWS + (next(_NEW) if new else 0)):
            torch.autograd.grad((tokens[:count] @ weights).sum(), (tokens, weights))

    return compute


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
