"""Weights as OpenVINO constants, in float16 or rounded to 8 or 4 bits.

A compressed weight is the subgraph that OpenVINO's device plugins recognize and keep compressed in memory::

    constant (i4, u4, i8, u8) - Convert to f16 - [Subtract zero point] - Multiply by scale - [Reshape] - Convert to f32

Constants are written to the IR's ``.bin`` file in blocks of rows (``ir.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import compress_model_transformation
from phi3_core.backend import Floats, RoundingPlan, Scheme, Weight, pack_nibbles, round_blocks

from .ir import Constants

_AT_ONCE = 1 << 22
TYPES = {
    (4, True): ov.Type.i4,
    (4, False): ov.Type.u4,
    (8, True): ov.Type.i8,
    (8, False): ov.Type.u8,
}


class MarkedConverts:
    """Creates Convert nodes with the ``decompression`` attribute, without which a plugin may decompress the weights.

    OpenVINO's Python API cannot set this attribute, but its compression pass does: it runs on dummy constants, and the
    resulting nodes get new inputs.
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
    """Creates the nodes of weights that are rounded by a plan, and writes their values to a file."""

    def __init__(
        self, plan: RoundingPlan, constants: Constants, stored: Callable[[Weight], None] | None = None
    ) -> None:
        self.plan, self.constants = plan, constants
        self.stored = stored
        """Called with each weight that has been written."""
        self.marked = MarkedConverts()

    @property
    def inputs(self) -> Sequence[ov.op.Parameter]:
        """Inputs of the model that are placeholders for weights."""
        return self.constants.inputs

    def matrix(self, weight: Weight) -> ov.Node:
        """Write a matrix and return its node, ``[outputs, inputs]`` in float32.

        Raises:
            ModelError: the weight has values that are not finite.
            UsageError: the group size does not divide the number of inputs.
        """
        scheme = self.plan.schemes.get(weight.name)
        node = self._half(weight) if scheme is None else self._rounded(weight, scheme)
        if self.stored:
            self.stored(weight)
        return self.marked.convert(node)

    def norm(self, weight: Weight, following: Weight) -> Floats:
        """Return the weights of a norm, divided by the balance of the linear layer ``following`` it."""
        return self.plan.norm(weight, following)

    def _half(self, weight: Weight) -> ov.Node:
        offset = self.constants.begin()
        for rows in weight.blocks(_AT_ONCE):
            self.constants.write(weight.float16(rows))
        return self.constants.node(weight.name, ov.Type.f16, weight.shape, offset)

    def _rounded(self, weight: Weight, scheme: Scheme) -> ov.Node:
        outputs, inputs = weight.shape
        groups = scheme.groups(inputs)
        importance, factors = self.plan.importance.get(weight.name), self.plan.factors.get(weight.name)
        scales = np.empty((outputs, groups), np.float16)
        zeros = None if scheme.symmetric else np.empty((outputs, groups), np.uint8)
        offset = self.constants.begin()
        for rows, part in round_blocks(weight, scheme, importance, factors=factors, pack=True):
            self.constants.write(part.values)
            scales[rows] = part.scales
            if zeros is not None and part.zeros is not None:
                zeros[rows] = part.zeros
        kind = TYPES[scheme.bits, scheme.symmetric]
        grouped = (outputs, inputs) if groups == 1 else (outputs, groups, inputs // groups)
        shared = (*grouped[:-1], 1)
        node = ops.convert(self.constants.node(weight.name, kind, grouped, offset), "f16")
        if zeros is not None:
            packed = _pack(zeros.reshape(-1)) if scheme.bits == 4 else zeros
            node = ops.subtract(
                node, ops.convert(self.constants.add(f"{weight.name}/zeros", kind, shared, packed), "f16")
            )
        node = ops.multiply(node, self.constants.add(f"{weight.name}/scales", ov.Type.f16, shared, scales))
        if groups > 1:
            node = ops.reshape(node, ops.constant(np.array(weight.shape, np.int64)), special_zero=False)
        return node


def _pack(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Pack 4-bit zero points, ``[n]``, in pairs; an odd number of them is padded with 0."""
    padded = np.zeros((1, len(values) + len(values) % 2), np.uint8)
    padded[0, : len(values)] = values
    return pack_nibbles(padded).reshape(-1)


def compression_info(linear: Sequence[Weight], plan: RoundingPlan) -> dict[str, str]:
    """Return how the linear layers were rounded, in the words in which NNCF notes it in a model; empty for float16.

    OpenVINO's NPU plugin quantizes activations, too, if the group size is -1, which is one scale per channel.

    Args:
        linear: the weights of the linear layers.
        plan: how they were rounded.
    """
    schemes = {weight.name: plan.schemes[weight.name] for weight in linear if weight.name in plan.schemes}
    if not schemes:
        return {}
    low = min(schemes.values(), key=lambda scheme: scheme.bits)
    sizes = {weight.name: math.prod(weight.shape) for weight in linear}
    share = sum(sizes[name] for name, scheme in schemes.items() if scheme.bits == low.bits) / sum(sizes.values())
    return {
        "mode": f"int{low.bits}_{'sym' if low.symmetric else 'asym'}",
        "group_size": str(low.group_size),
        "ratio": f"{share:.4g}",
    }


def stored_bytes(weight: Weight, scheme: Scheme | None) -> int:
    """Return the size of a weight in the artifact, in bytes."""
    if scheme is None:
        return 2 * math.prod(weight.shape)
    outputs, inputs = weight.shape
    each_group = 2 + (0 if scheme.symmetric else scheme.bits / 8)
    return math.ceil(outputs * (inputs * scheme.bits / 8 + scheme.groups(inputs) * each_group))
