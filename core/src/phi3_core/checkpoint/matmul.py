"""Matrix products with memory-mapped weights: ``inputs @ weight.T`` in float32, without a float32 copy of the weight.

Each thread converts a block of rows and multiplies it while it is in its cache, with BLAS limited to one thread
(:func:`single_threaded_blas`). Converting first and multiplying with a multi-threaded BLAS took a seventh longer.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from phi3_core.cgroups import processors

from .safetensors import Floats, Weight
from .scratch import scratch_buffer

_AT_ONCE = 1 << 20
_THREADS = processors()
_LIMITED = threading.RLock()


def product(weight: Weight, inputs: Floats) -> Floats:
    """Return ``inputs @ weight.T``.

    Args:
        weight: ``[outputs, inputs]``.
        inputs: ``[tokens, inputs]``.

    Returns:
        ``[tokens, outputs]``.

    Raises:
        ModelError: the weight has values that are not finite.
    """
    outputs = np.empty((len(inputs), weight.shape[0]), np.float32)

    def multiply(rows: slice) -> None:
        values = weight.float32(rows, scratch_buffer("rows", weight.raw[rows].size), check=False)
        # In this order OpenBLAS is two to three times as fast for a few hundred tokens.
        with np.errstate(invalid="ignore", over="ignore"):
            made = values @ inputs.T
            damaged = not np.isfinite(made.sum())
        if damaged:
            weight.check_finite(rows)
        outputs[:, rows] = made.T

    # The same number of blocks for each thread, so that none processes an extra one while the others wait.
    turns = math.ceil(weight.raw.size / (_AT_ONCE * _THREADS))
    with single_threaded_blas():
        list(_threads().map(multiply, weight.blocks(math.ceil(weight.raw.size / (turns * _THREADS)))))
    return outputs


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to the calling thread inside the block.

    BLAS threads synchronize by busy-waiting, many times per layer: for small matrices that takes longer than the
    arithmetic, and ten times as long on a busy machine. The limit applies to the process, so a second thread waits
    until the first leaves the block.
    """
    with _LIMITED, _matrix_library().limit(limits=1):
        yield


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="phi3-products")


@functools.cache
def _matrix_library() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")
