"""The OpenVINO graph of a Phi-3 checkpoint for OpenVINO GenAI, built node by node.

Inputs are ``input_ids``, ``attention_mask`` and ``position_ids`` (``[batch, tokens]``, int64; the mask covers the KV
cache too) and ``beam_idx`` (``[batch]``, int32); the output is ``logits``. The KV cache is the model's state, one
variable for the keys and one for the values of each layer.

OpenVINO GenAI has two attention backends. SDPA runs the graph unchanged. The paged backend replaces each cache and its
attention by PagedAttention, removes the mask, and recognizes a sliding window only in certain forms of the mask
(OpenVINO, ``transformations/sdpa_to_paged_attention/state_management_pattern.cpp``). This graph uses the form named
gpt-oss there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from phi3_core.backend import Architecture, Checkpoint, Floats, Layer, Rotary, RoundingPlan, Weight

from . import ir, longrope
from .graph_weights import CompressedWeights, compression_info

HIDDEN = np.float32(-65504.0)
"""Attention mask value of hidden keys: the lowest finite float16 number, which all devices can represent."""


def write(
    checkpoint: Checkpoint, plan: RoundingPlan, path: Path, stored: Callable[[Weight], None] | None = None
) -> None:
    """Write a checkpoint as an OpenVINO IR.

    Args:
        checkpoint: the original weights.
        plan: how to round them.
        path: the ``.xml`` file; the ``.bin`` file is written beside it.
        stored: called with each weight that has been written.
    """
    with path.with_suffix(".bin").open("wb") as file:
        constants = ir.Constants(file)
        model = build(checkpoint, CompressedWeights(plan, constants, stored))
        for key, value in compression_info(tuple(checkpoint.linear), plan).items():
            model.set_rt_info(value, ["nncf", "weight_compression", key])
        ir.save(model, constants, path)


class Weights(Protocol):
    """Creates the nodes of weights."""

    def matrix(self, weight: Weight) -> ov.Node:
        """Return the node of a matrix, ``[outputs, inputs]`` in float32, whatever its stored type."""
        ...

    def norm(self, weight: Weight, following: Weight) -> Floats:
        """Return the weights of a norm, ``[hidden]``, adjusted to the linear layer ``following`` it."""
        ...

    @property
    def inputs(self) -> Sequence[ov.op.Parameter]:
        """Inputs of the model that are placeholders for weights."""
        ...


def build(checkpoint: Checkpoint, weights: Weights) -> ov.Model:
    """Return the graph of a checkpoint.

    Args:
        checkpoint: the original weights.
        weights: creates the nodes of the weights.
    """
    shape = checkpoint.architecture
    ids, mask, positions = (_input(name, [-1, -1]) for name in ("input_ids", "attention_mask", "position_ids"))
    beams = _input("beam_idx", [-1], np.int32)
    table = weights.matrix(checkpoint.embedding)
    states = ops.gather(table, ids, _whole(0))
    attention = _Attention(checkpoint.architecture, weights, (ids, mask, positions, beams))
    for index, layer in enumerate(checkpoint.layers):
        normed = _rms_norm(states, weights.norm(layer.input_norm, layer.qkv), shape.epsilon)
        states = ops.add(states, attention(layer, index, normed))
        normed = _rms_norm(states, weights.norm(layer.post_norm, layer.gate_up), shape.epsilon)
        states = ops.add(states, _feed_forward(shape, layer, weights, normed))
    normed = _rms_norm(states, weights.norm(checkpoint.norm, checkpoint.head), shape.epsilon)
    head = table if shape.tied else weights.matrix(checkpoint.head)
    logits = ops.result(_linear(normed, head), name="logits")
    logits.output(0).set_names({"logits"})
    return ov.Model([logits], attention.cache.stored, [ids, mask, positions, beams, *weights.inputs], "phi3")


def _input(name: str, shape: Sequence[int], kind: type = np.int64) -> ov.Node:
    node = ops.parameter(list(shape), kind, name=name)
    node.output(0).set_names({name})
    return node


def _whole(*values: int) -> ov.Node:
    """Return an integer constant: a scalar for one value, else a vector."""
    return ops.constant(np.array(values[0] if len(values) == 1 else values, np.int64))


def _list(*values: int) -> ov.Node:
    return ops.constant(np.array(values, np.int64))


def _linear(inputs: ov.Node, matrix: ov.Node) -> ov.Node:
    return ops.matmul(inputs, matrix, transpose_a=False, transpose_b=True)


def _rms_norm(states: ov.Node, weight: Floats, epsilon: float) -> ov.Node:
    """Return RMSNorm as primitive operations, in the form that OpenVINO's device plugins fuse."""
    square = ops.power(states, ops.constant(np.float32(2)))
    mean = ops.add(ops.reduce_mean(square, _list(-1), keep_dims=True), ops.constant(np.float32(epsilon)))
    normed = ops.multiply(states, ops.divide(ops.constant(np.float32(1)), ops.sqrt(mean)))
    return ops.multiply(normed, ops.constant(weight.reshape(1, 1, -1)))


def _length(node: ov.Node, axis: int) -> ov.Node:
    """Return one dimension as a scalar."""
    return ops.gather(ops.shape_of(node), _whole(axis), _whole(0))


class _Rotary:
    """The rotary embedding: cosine and sine of every position, ``[batch, 1, tokens, size]``.

    The operations and their order are those that OpenVINO's NPU plugin recognizes in models of the transformers
    library. It replaces sine and cosine by tables that it computes in float32, since the NPU computes in float16, which
    does not have all whole numbers above 2048 (``npuw/partitioning/patterns/pre_compute.cpp``).
    """

    def __init__(self, rotary: Rotary, positions: ov.Node) -> None:
        self.size = rotary.size
        frequencies: ov.Node = ops.constant(rotary.short.reshape(1, -1, 1))
        if rotary.long is not None:
            # As in transformers, the long factors apply to all positions as soon as one exceeds the original context.
            last = ops.reduce_max(positions, _list(0, 1), keep_dims=False)
            fits = ops.less_equal(ops.add(last, _whole(1)), _whole(rotary.original_context))
            frequencies = ops.select(fits, frequencies, ops.constant(rotary.long.reshape(1, -1, 1)))
            frequencies.set_friendly_name(longrope.CHOICE)
        rows = ops.gather(ops.shape_of(positions), _list(0), _whole(0))
        column = ops.broadcast(frequencies, ops.concat([rows, _list(self.size // 2), _list(1)], 0))
        places = ops.convert(ops.unsqueeze(positions, _whole(1)), np.float32)
        angles = ops.transpose(ops.matmul(column, places, transpose_a=False, transpose_b=False), _list(0, 2, 1))
        angles = ops.concat([angles, angles], -1)
        self.cosine, self.sine = (self._scaled(turned, rotary.scale) for turned in (ops.cos(angles), ops.sin(angles)))

    @staticmethod
    def _scaled(turned: ov.Node, scale: float) -> ov.Node:
        scaled = turned if scale == 1 else ops.multiply(turned, ops.constant(np.float32(scale)))
        return ops.unsqueeze(scaled, _whole(1))

    def __call__(self, heads: ov.Node, head_size: int) -> ov.Node:
        """Rotate the first ``size`` dimensions of ``[batch, heads, tokens, head size]``; the others stay unchanged."""
        if self.size == head_size:
            return self._rotate(heads)
        rest = _slice(heads, self.size, head_size)
        return ops.concat([self._rotate(_slice(heads, 0, self.size)), rest], -1)

    def _rotate(self, heads: ov.Node) -> ov.Node:
        first, second = _slice(heads, 0, self.size // 2), _slice(heads, self.size // 2, self.size)
        swapped = ops.concat([ops.multiply(second, ops.constant(np.float32(-1))), first], -1)
        return ops.add(ops.multiply(heads, self.cosine), ops.multiply(swapped, self.sine))


def _slice(node: ov.Node, start: int, stop: int, axis: int = 3) -> ov.Node:
    return ops.slice(node, _list(start), _list(stop), _list(1), _list(axis))


def _attention_mask(shape: Architecture, ids: ov.Node, mask: ov.Node, positions: ov.Node) -> ov.Node:
    """Return the additive attention mask, ``[batch, 1, tokens, keys]``: 0 for visible keys, else ``HIDDEN``."""
    tokens, keys = _length(ids, 1), _length(mask, 1)
    zero, one = _whole(0), _whole(1)
    every = ops.range(zero, keys, one, "i64")
    behind = ops.range(ops.subtract(keys, tokens), keys, one, "i64")
    causal = ops.less_equal(ops.unsqueeze(every, _list(0, 1, 2)), ops.unsqueeze(behind, _list(0, 1, 3)))
    present = ops.not_equal(ops.unsqueeze(mask, _list(1, 2)), zero)
    if shape.window is None:
        visible = ops.logical_and(causal, present)
        return ops.select(visible, ops.constant(np.float32(0)), ops.constant(HIDDEN))
    # The window compares positions, not cache indices, because some devices leave gaps in the cache. The operations
    # without effect complete the form that the paged backend recognizes; see the module's docstring.
    true = ops.constant(np.array(True))
    places = ops.unsqueeze(ops.subtract(ops.cum_sum(mask, _whole(1)), one), _list(1, 2))
    near = ops.greater(places, ops.add(ops.unsqueeze(positions, _list(1, 3)), _whole(-shape.window)))
    visible = ops.bitwise_and(ops.bitwise_and(causal, near), present)
    visible = ops.bitwise_and(ops.bitwise_and(true, visible), true)
    sizes = (ops.unsqueeze(size, zero) for size in (_length(ids, 0), one, tokens, keys))
    wide = ops.broadcast(visible, ops.concat(list(sizes), 0))
    added = ops.select(wide, ops.constant(np.float32(0)), ops.constant(HIDDEN))
    return ops.slice(added, _list(0), ops.unsqueeze(keys, zero), _list(1), _list(3))


class _Cache:
    """The KV cache as the model's state, ``[batch, key heads, keys, head size]``."""

    def __init__(self, shape: Architecture, ids: ov.Node, beams: ov.Node) -> None:
        self.shape, self.beams = shape, beams
        self.stored: list[ov.Node] = []
        batch = ops.gather(ops.shape_of(ids), _list(0), _whole(0))
        sizes = ops.concat([batch, _list(shape.key_value_heads, 0, shape.head_size)], 0)
        self.empty = ops.broadcast(ops.constant(np.float32(0)), sizes)

    def extend(self, index: int, kind: str, new: ov.Node) -> ov.Node:
        """Append new keys or values to those of the same beam."""
        name = f"past_key_values.{index}.{kind}present.{index}.{kind}"
        sizes = ov.PartialShape([-1, self.shape.key_value_heads, -1, self.shape.head_size])
        past = ops.read_value(self.empty, name, np.float32, sizes)
        whole = ops.concat([ops.gather(past, self.beams, _whole(0)), new], 2)
        self.stored.append(ops.assign(whole, name))
        return self._spread(whole)

    def _spread(self, heads: ov.Node) -> ov.Node:
        """Repeat each key or value head for the query heads that share it."""
        shape = self.shape
        each = shape.heads // shape.key_value_heads
        if each == 1:
            return heads
        sizes = ops.concat(
            [
                ops.gather(ops.shape_of(heads), _list(0, 1), _whole(0)),
                _list(each),
                ops.gather(ops.shape_of(heads), _list(2, 3), _whole(0)),
            ],
            0,
        )
        wide = ops.broadcast(ops.unsqueeze(heads, _whole(2)), sizes, broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _list(0, shape.heads, -1, shape.head_size), special_zero=True)


class _Attention:
    """The attention layers and what they share: rotary embedding, attention mask and KV cache."""

    def __init__(
        self, shape: Architecture, weights: Weights, inputs: tuple[ov.Node, ov.Node, ov.Node, ov.Node]
    ) -> None:
        ids, mask, positions, beams = inputs
        self.shape, self.weights = shape, weights
        self.cache = _Cache(shape, ids, beams)
        self.turn = _Rotary(shape.rotary, positions)
        self.seen = _attention_mask(shape, ids, mask, positions)

    def __call__(self, layer: Layer, index: int, inputs: ov.Node) -> ov.Node:
        """Return the attention's output, of the shape of its inputs, ``[batch, tokens, hidden]``."""
        shape = self.shape
        qkv = _linear(inputs, self.weights.matrix(layer.qkv))
        parts = ops.variadic_split(qkv, _whole(2), _list(shape.q_width, shape.kv_width, shape.kv_width)).outputs()
        counts = shape.heads, shape.key_value_heads, shape.key_value_heads
        queries, keys, values = (
            ops.transpose(ops.reshape(part, _list(0, 0, count, shape.head_size), special_zero=True), _list(0, 2, 1, 3))
            for part, count in zip(parts, counts, strict=True)
        )
        queries, keys = self.turn(queries, shape.head_size), self.turn(keys, shape.head_size)
        keys, values = self.cache.extend(index, "key", keys), self.cache.extend(index, "value", values)
        outputs = ops.transpose(ops.scaled_dot_product_attention(queries, keys, values, self.seen), _list(0, 2, 1, 3))
        flat = ops.reshape(outputs, _list(0, 0, shape.q_width), special_zero=True)
        return _linear(flat, self.weights.matrix(layer.output))


def _feed_forward(shape: Architecture, layer: Layer, weights: Weights, inputs: ov.Node) -> ov.Node:
    both = _linear(inputs, weights.matrix(layer.gate_up))
    gate, inner = ops.variadic_split(both, _whole(2), _list(shape.intermediate, shape.intermediate)).outputs()
    return _linear(ops.multiply(ops.swish(gate), inner), weights.matrix(layer.down))
