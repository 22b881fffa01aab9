"""Products with mapped weights: ``inputs @ weight.T`` in float32, by all processors, without a float32 copy of it.

Each thread converts some rows and multiplies them while they are in its cache, with a matrix library that is told to
leave the other processors alone (:func:`single_threaded_blas`). Converting first and multiplying with all threads
together took a seventh longer.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from .safetensors import Floats, Weight
from .scratch import scratch_buffer

_AT_ONCE = 1 << 20
_THREADS = os.cpu_count() or 1
_LIMITED = threading.RLock()


def product(weight: Weight, inputs: Floats) -> Floats:
    """What a linear layer makes of its inputs, ``[tokens, inputs]`` to ``[tokens, outputs]``."""
    outputs = np.empty((len(inputs), weight.shape[0]), np.float32)

    def multiply(rows: slice) -> None:
        values = weight.float32(rows, scratch_buffer("rows", weight.raw[rows].size), check=False)
        # This way round OpenBLAS is two to three times as fast on some hundred tokens.
        with np.errstate(invalid="ignore", over="ignore"):
            made = values @ inputs.T
            damaged = not np.isfinite(made.sum())
        if damaged:
            weight.check_finite(rows)
        outputs[:, rows] = made.T

    # As many blocks for each thread, so that none is left to do one more alone.
    turns = math.ceil(weight.raw.size / (_AT_ONCE * _THREADS))
    with single_threaded_blas():
        list(_threads().map(multiply, weight.blocks(math.ceil(weight.raw.size / (turns * _THREADS)))))
    return outputs


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Have the matrix library work in the calling thread only.

    Its own threads wait for each other in loops, many times for each layer: with small matrices that takes longer than
    the work does, and on a busy machine ten times as long. The limit is the whole process's, so a second caller waits:
    one would lift the other's.
    """
    with _LIMITED, _matrix_library().limit(limits=1):
        yield


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="phi3-products")


@functools.cache
def _matrix_library() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController().select(user_api="blas")
