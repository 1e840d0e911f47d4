"""Memory that a long run would gather on a processor, and no one would use again."""

from __future__ import annotations

import ctypes
import os


def release_unused_memory() -> None:
    """Give what the C allocator holds in reserve back to the system (glibc; elsewhere nothing)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


LARGE = 2**20  # bytes
MMAP_THRESHOLD = -3  # glibc's name of it, M_MMAP_THRESHOLD


def return_large_blocks() -> None:
    """Have the C allocator give every large block back as soon as it is free (glibc; elsewhere
    nothing). It keeps them otherwise, and layers gathered from shared-out weights come and go in
    every pass: two gigabytes lay unused beside one of a model of 124 million parameters."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option is not None:
        set_option(MMAP_THRESHOLD, LARGE)
