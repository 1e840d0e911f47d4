"""Processes that another one of ours starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

LOOKS_EVERY = 1.0  # seconds


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start(module: str, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
    """The program ``module`` in a process of its own, which finds the modules that this one does.

    Args:
        options: of ``subprocess.Popen``.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, **options)


def end_with(parent: int) -> None:
    """End this process when the one with the number ``parent``, which started it, has ended, also
    where that was killed."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOKS_EVERY)
    os._exit(1)
