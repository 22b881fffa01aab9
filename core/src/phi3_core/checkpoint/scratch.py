"""Arrays that a thread uses again and again.

New memory costs as much as half of the arithmetic that is done in it: the system clears it page by page.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

_OWN = threading.local()


def scratch_buffer(use: str, size: int) -> npt.NDArray[np.float32]:
    """A flat float32 array, the calling thread's own for this use; what was in it may still be there."""
    kept: npt.NDArray[np.float32] | None = getattr(_OWN, use, None)
    if kept is None or kept.size < size:
        kept = np.empty(size, np.float32)
        setattr(_OWN, use, kept)
    return kept[:size]
