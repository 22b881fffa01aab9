"""Memory that is taken as it is first written, a few kilobytes at a time."""

from __future__ import annotations

import contextlib
import mmap
import sys

import numpy as np
import numpy.typing as npt


def reserve(size: int) -> npt.NDArray[np.uint8]:
    """Return memory for ``size`` bytes, at least one, which is not taken yet.

    Core asks glibc for large pages, for the weights. A KV cache is written in small parts far from each other, each of
    which would take, and clear, a page of 2 MiB: see docs/decisions/0055.
    """
    if sys.platform != "linux":
        return np.empty(size, np.uint8)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # the kernel has no large pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8)
