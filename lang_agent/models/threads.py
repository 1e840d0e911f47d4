"""How many processor threads a model computes with, and how they wait for one another.

Every product of torch's is shared out among threads that then wait for the last. A small model's
products take microseconds, so that it gains a little from a second thread on an idle machine. On a
busy one, where a thread stands still for milliseconds whenever others have the processor, it loses
nearly all: the rest wait for it by counting in a loop and use up their own turns with that
(`benchmarks/busy.py` has figures). So small models take one thread by default, and the threads of
large ones give their processor away while they wait, where that can still be said.
"""

from __future__ import annotations

import torch
from torch import nn

SMALL = 10_000_000  # parameters: the sizes nano and micro are below


def use_threads(
    threads: int | None, model: nn.Module, device: torch.device, processes: int = 1
) -> None:
    """Let torch compute with so many threads in this process.

    None takes one for a small model on a processor, and otherwise torch's number, shared out among
    so many processes.
    """
    if threads is None and device.type == "cpu" and is_small(model):
        threads = 1
    if threads is None and processes > 1:
        threads = max(torch.get_num_threads() // processes, 1)
    if threads is not None:
        torch.set_num_threads(threads)


def is_small(model: nn.Module) -> bool:
    """Whether a second thread gains little."""
    return sum(parameter.numel() for parameter in model.parameters()) < SMALL
