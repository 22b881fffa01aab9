"""Round weights to 4 or 8 bits so that the error of the layer's output is small.

The scale of each group is searched (``scales.py``), errors are weighted by the importance of their inputs, and errors
of earlier groups are compensated in later ones (``importance.py``). Rows are processed in blocks that fit the cache.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from attrs import evolve, frozen

from phi3_core.cgroups import processors
from phi3_core.checkpoint.safetensors import Floats, Weight
from phi3_core.checkpoint.scratch import scratch_buffer
from phi3_core.errors import UsageError

from .importance import Feedback, Importance, plan_feedback
from .scales import Integers, Scales, Scheme, search

_AT_ONCE = 1 << 20
_AT_ONCE_IN_STEPS = 1 << 22
_CACHED = 1 << 19
_LONGEST_STEP = 128


@frozen(kw_only=True, eq=False)
class Rounded:
    """Rows of a rounded weight."""

    scheme: Scheme
    values: Integers
    """``[rows, inputs]``: int8 if symmetric, else uint8. If packed: uint8, ``[rows, inputs / 2]``."""
    scales: npt.NDArray[np.float16]
    """``[rows, groups]``; negative for some int4 groups, so that their largest weight can be -8 times the scale."""
    zeros: npt.NDArray[np.uint8] | None
    """Zero points, ``[rows, groups]``; None if symmetric."""

    def dequantize(self) -> Floats:
        """Return the dequantized weights, ``[rows, inputs]``."""
        grouped = self.values.reshape(*self.scales.shape, -1).astype(np.float32)
        if self.zeros is not None:
            grouped -= self.zeros[..., None]
        grouped *= self.scales[..., None].astype(np.float32)
        return grouped.reshape(self.values.shape)


def check_group_size(weight: Weight, scheme: Scheme) -> None:
    """Check that the group size divides the number of inputs.

    Raises:
        UsageError: it does not.
    """
    inputs, size = weight.shape[1], scheme.group_size
    if size == -1:
        return
    if size < 1 or inputs % size:
        fitting = [str(each) for each in (128, 64, 32) if inputs % each == 0]
        raise UsageError(
            f"groups of {size} do not divide the {inputs} inputs of {weight.name}",
            hint=f"use a group size of {' or '.join([*fitting, '-1 (one scale per channel)'])}",
        )


def round_blocks(
    weight: Weight,
    scheme: Scheme,
    importance: Importance | None = None,
    *,
    factors: Floats | None = None,
    pack: bool = False,
    workers: int | None = None,
) -> Iterator[tuple[slice, Rounded]]:
    """Round a weight in parallel, yielding each block of rows in order.

    A weight that was quantized to the scheme already keeps its integers and scales, without importance and factors.

    Args:
        weight: ``[outputs, inputs]``.
        scheme: what to round to.
        importance: the importance of the inputs; None if all count the same. With a balance, the balanced weight is
            rounded.
        factors: factors of the rows, ``[outputs]``, applied before rounding.
        pack: whether to pack 4-bit integers (:func:`pack_nibbles`).
        workers: number of threads; by default that of the processors, at most 8.

    Raises:
        ModelError: the weight has values that are not finite.
        UsageError: the group size does not divide the number of inputs.
    """
    check_group_size(weight, scheme)
    workers = workers or min(8, processors())
    rounder = _Rounder(scheme, weight.shape[1], importance)

    as_it_is = importance is None and factors is None and scheme.holds(weight)

    def work(rows: slice) -> Rounded:
        if as_it_is:
            integers, scales = weight.on_grid(rows)
            kept = Rounded(scheme=scheme, values=integers, scales=scales, zeros=None)
            return evolve(kept, values=pack_nibbles(integers)) if pack and scheme.bits == 4 else kept
        values = weight.float32(rows, scratch_buffer("rows", weight.raw[rows].size), check=False)
        if factors is not None:
            values *= factors[rows, None]
        with np.errstate(invalid="ignore"):
            rounded = rounder(values)
        if not np.isfinite(rounded.scales).all():
            weight.check_finite(rows)
        return evolve(rounded, values=pack_nibbles(rounded.values)) if pack and scheme.bits == 4 else rounded

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[slice, Future[Rounded]]] = deque()
        for rows in weight.blocks(rounder.elements):
            ahead.append((rows, pool.submit(work, rows)))
            if len(ahead) > 2 * workers:
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()


def round_rows(values: Floats, scheme: Scheme, importance: Importance | None = None) -> Rounded:
    """Round some rows, ``[rows, inputs]``, without changing ``values``."""
    return _Rounder(scheme, values.shape[1], importance)(values.copy())


def relative_output_error(values: Floats, rounded: Rounded, importance: Importance | None = None) -> float:
    """Return the expected squared error of the output, relative to the expected square of the output.

    Args:
        values: rows before rounding, ``[rows, inputs]``.
        rounded: the same rows after rounding.
        importance: the importance of the inputs; None if all count the same.
    """
    weights = (importance or _uniform_importance(values.shape[1])).weights
    whole = _weighted_sum(values, weights)
    return _weighted_sum(rounded.dequantize() - values, weights) / whole if whole else 0.0


class _Rounder:
    """Rounds blocks of rows of one weight."""

    def __init__(self, scheme: Scheme, inputs: int, importance: Importance | None) -> None:
        self.scheme = scheme
        self.importance = importance or _uniform_importance(inputs)
        self.weights = self.importance.weights
        self.feedback: Feedback | None = None
        self.elements = _AT_ONCE
        """Elements of a block."""
        if self.importance.directions is not None and scheme.bits == 4:
            size = inputs // scheme.groups(inputs)
            step = next(each for each in range(min(size, _LONGEST_STEP), 0, -1) if size % each == 0)
            self.feedback = plan_feedback(self.importance, step)
            self.elements = _AT_ONCE_IN_STEPS

    def __call__(self, values: Floats) -> Rounded:
        """Round some rows. May change ``values``."""
        if self.importance.balance is not None:
            values *= self.importance.balance
        rows, inputs = values.shape
        groups = self.scheme.groups(inputs)
        result = Rounded(
            scheme=self.scheme,
            values=np.empty((rows, inputs), np.int8 if self.scheme.symmetric else np.uint8),
            scales=np.empty((rows, groups), np.float16),
            zeros=None if self.scheme.symmetric else np.empty((rows, groups), np.uint8),
        )
        if self.feedback:
            _round_in_steps(values, self.feedback, result)
        else:
            _round_at_once(values, self.weights, result)
        return result


def _uniform_importance(inputs: int) -> Importance:
    """Return an importance with which all inputs count the same."""
    return Importance(moments=np.ones(inputs, np.float32))


def _round_at_once(values: Floats, weights: Floats, result: Rounded) -> None:
    """Round all groups of some rows together."""
    rows, groups = result.scales.shape
    shaped, integers = values.reshape(rows, groups, -1), result.values.reshape(rows, groups, -1)
    blocks = math.ceil(values.size / _CACHED)
    step = math.ceil(rows / blocks)
    for start in range(0, rows, step):
        block = slice(start, min(start + step, rows))
        _keep(result, search(shaped[block], weights.reshape(groups, -1), result.scheme, integers[block]), block)


def _round_in_steps(values: Floats, feedback: Feedback, result: Rounded) -> None:
    """Round one step after another, each shifted to compensate the errors of those before it."""
    rows, groups = result.scales.shape
    size = values.shape[1] // groups
    block_rows = max(1, _CACHED // size)
    for start in range(0, rows, block_rows):
        block = slice(start, min(start + block_rows, rows))
        changed = np.zeros((block.stop - start, feedback.steps[0].push.shape[1]), np.float32)
        scales: Scales | None = None
        for step in feedback.steps:
            group = step.inputs.start // size
            original = values[block, step.inputs]
            shifted = _matmul(changed, step.pull)
            np.subtract(original, shifted, out=shifted)
            if step.inputs.start % size == 0:
                columns = slice(step.inputs.start, step.inputs.start + size)
                target = values[block, columns].copy() if size > shifted.shape[1] else shifted
                scales = search(target[:, None], feedback.weights[None, columns], result.scheme)
                _keep(result, scales, block, slice(group, group + 1))
            assert scales is not None
            errors = np.empty_like(shifted)
            scales.round(shifted[:, None], errors[:, None], result.values[block, None, step.inputs])
            errors *= scales.stored
            errors -= original
            changed += _matmul(errors, step.push)


def _keep(result: Rounded, found: Scales, rows: slice, groups: slice = slice(None)) -> None:
    result.scales[rows, groups] = found.stored
    if result.zeros is not None and found.zeros is not None:
        result.zeros[rows, groups] = found.zeros


def _matmul(left: Floats, right: Floats) -> Floats:
    """Return a product, computed in slices small enough for OpenBLAS to stay in the calling thread.

    The blocks of rows are divided among threads already.
    """
    rows = max(1, (1 << 18) // right.size)
    whole = len(left) // rows * rows
    if whole == 0:
        return left @ right
    product = np.empty((len(left), right.shape[1]), np.float32)
    slices = product[:whole].reshape(-1, rows, right.shape[1])
    np.matmul(left[:whole].reshape(-1, rows, left.shape[1]), right, out=slices)
    np.matmul(left[whole:], right, out=product[whole:])
    return product


def _weighted_sum(values: Floats, weights: Floats) -> float:
    return float(np.einsum("ri,ri->i", values, values).astype(np.float64) @ weights)


def pack_nibbles(values: Integers) -> npt.NDArray[np.uint8]:
    """Pack pairs of 4-bit integers along the inputs into bytes.

    The first of a pair is in the low half of the byte; negative ones are in two's complement.

    Args:
        values: ``[rows, inputs]``, with an even number of inputs.

    Returns:
        ``[rows, inputs / 2]``.
    """
    pairs: npt.NDArray[np.uint16] = np.ascontiguousarray(values).view("<u2")
    packed = pairs & 0x0F0F
    packed |= packed >> 4
    return packed.astype(np.uint8)  # the low byte of each
