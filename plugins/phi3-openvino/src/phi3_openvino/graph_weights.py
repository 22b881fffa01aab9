"""Weights as OpenVINO constants: half precision straight from the checkpoint, 8 and 4 bits from core's rounding.

Every compressed weight is the subgraph that OpenVINO's plugins recognize and keep compressed in memory::

    constant (i4, u4, i8, u8) - Convert to f16 - [Subtract zero point] - Multiply by scale - [Reshape] - Convert to f32

What is made here lives in a scratch file that is mapped into memory, so that the system can write it out and drop
it: a few gigabytes of weights then need next to no memory of the process's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import compress_model_transformation
from phi3_core.quantization.mapped import Floats, Weight
from phi3_core.quantization.plan import Plan
from phi3_core.quantization.rounding import Rounded, pack_nibbles, round_blocks
from phi3_core.quantization.scales import Scheme

_ALIGNMENT = 64
_TYPES = {
    (4, True): ov.Type.i4,
    (4, False): ov.Type.u4,
    (8, True): ov.Type.i8,
    (8, False): ov.Type.u8,
}


class Scratch:
    """Arrays in a file of a temporary folder, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        self.count += 1
        return np.memmap(self.folder / f"{self.count}.scratch", dtype, "w+", shape=shape)


class _Marked:
    """Convert nodes that carry the mark ``decompression``, without which a plugin may undo the compression.

    OpenVINO's Python cannot set that mark, but its compression pass does: it is run on throw-away constants, and the
    nodes it made are given other inputs.
    """

    def __init__(self) -> None:
        self.ready: list[ov.Node] = []

    def convert(self, node: ov.Node | ov.Output) -> ov.Node:
        if not self.ready:
            decoys = [ops.result(ops.abs(ops.constant(np.array([1.0, number], np.float32)))) for number in range(64)]
            model = ov.Model(decoys, [], "decoys")
            compress_model_transformation(model)
            self.ready = [found for found in model.get_ops() if found.get_type_name() == "Convert"]
        converted = self.ready.pop()
        converted.input(0).replace_source_output(node.output(0))
        converted.validate_and_infer_types()
        return converted


class CompressedWeights:
    """Turns weights into nodes by a plan. Keep it as long as the model: its arrays are the model's constants."""

    def __init__(self, plan: Plan, scratch: Scratch, stored: Callable[[Weight], None] | None = None) -> None:
        self.plan, self.scratch = plan, scratch
        self.stored = stored
        """Called with each weight when it is done."""
        self.marked = _Marked()
        self.alive: list[npt.NDArray[Any]] = []
        self.lost: dict[str, float] = {}
        """The share of each weight's output, squared, that rounding lost."""

    def matrix(self, weight: Weight) -> ov.Node:
        scheme = self.plan.schemes.get(weight.name)
        if scheme is None:
            node = self._half(weight)
        else:
            importance, factors = self.plan.importance.get(weight.name), self.plan.factors.get(weight.name)
            node = self._rounded(weight, scheme, round_blocks(weight, scheme, importance, factors=factors))
        if self.stored:
            self.stored(weight)
        return node

    def norm(self, weight: Weight, following: Weight) -> Floats:
        """A norm's weights, divided by the balance of the linear layer that follows."""
        return self.plan.norm(weight, following)

    def _half(self, weight: Weight) -> ov.Node:
        values = weight.raw
        if weight.dtype != "F16" or not values.flags.aligned:
            values = self.scratch.array(weight.shape, np.float16)
            for rows in weight.blocks(1 << 22):
                # Halves end at 65504; weights are far below, and infinity would spread.
                values[rows] = np.clip(weight.float32(rows), -65504, 65504)
        return self.marked.convert(self._constant(values, ov.Type.f16, weight.shape, weight.name))

    def _rounded(self, weight: Weight, scheme: Scheme, blocks: Iterable[tuple[slice, Rounded]]) -> ov.Node:
        outputs, inputs = weight.shape
        groups = scheme.groups(inputs)
        per_byte = 8 // scheme.bits
        values = self.scratch.array((outputs, inputs // per_byte), np.uint8)
        scales = np.empty((outputs, groups), np.float16)
        zeros = None if scheme.symmetric else np.empty((outputs, groups), np.uint8)
        lost = whole = 0.0
        for rows, part in blocks:
            values[rows] = pack_nibbles(part.values) if scheme.bits == 4 else part.values.view(np.uint8)
            scales[rows] = part.scales
            if zeros is not None and part.zeros is not None:
                zeros[rows] = part.zeros
            lost, whole = lost + part.lost, whole + part.whole
        self.lost[weight.name] = lost / whole if whole else 0.0
        kind = _TYPES[scheme.bits, scheme.symmetric]
        grouped = (outputs, inputs) if groups == 1 else (outputs, groups, inputs // groups)
        shared = (*grouped[:-1], 1)
        node = ops.convert(self._constant(values, kind, grouped, weight.name), "f16")
        if zeros is not None:
            packed = _pack(zeros.reshape(-1)) if scheme.bits == 4 else zeros
            node = ops.subtract(node, ops.convert(self._constant(packed, kind, shared, f"{weight.name}/zeros"), "f16"))
        node = ops.multiply(node, self._constant(scales, ov.Type.f16, shared, f"{weight.name}/scales"))
        if groups > 1:
            node = ops.reshape(node, ops.constant(np.array(weight.shape, np.int64)), special_zero=False)
        return self.marked.convert(node)

    def _constant(self, values: npt.NDArray[Any], kind: ov.Type, shape: tuple[int, ...], name: str) -> ov.Node:
        """A constant that shares the array's memory."""
        self.alive.append(values)
        constant = ov.op.Constant(ov.Tensor(values, ov.Shape(list(shape)), kind), shared_memory=True)
        constant.set_friendly_name(name)
        return constant


def _pack(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Zero points of four bits, one row of them; an odd one out is followed by nothing."""
    padded = np.zeros((1, len(values) + len(values) % 2), np.uint8)
    padded[0, : len(values)] = values
    return pack_nibbles(padded).reshape(-1)


def stored_bytes(weight: Weight, scheme: Scheme | None) -> int:
    """What a weight takes in the artifact."""
    if scheme is None:
        return 2 * math.prod(weight.shape)
    outputs, inputs = weight.shape
    each_group = 2 + (0 if scheme.symmetric else scheme.bits / 8)
    return math.ceil(outputs * (inputs * scheme.bits / 8 + scheme.groups(inputs) * each_group))
