"""Reusable arrays for each thread.

Allocating new memory takes half as long as the arithmetic done in it, because the system clears every page.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

_OWN = threading.local()


def scratch_buffer(use: str, size: int) -> npt.NDArray[np.float32]:
    """Return a flat float32 array of ``size`` elements that the calling thread reuses for ``use``; not cleared."""
    kept: npt.NDArray[np.float32] | None = getattr(_OWN, use, None)
    if kept is None or kept.size < size:
        kept = np.empty(size, np.float32)
        setattr(_OWN, use, kept)
    return kept[:size]
