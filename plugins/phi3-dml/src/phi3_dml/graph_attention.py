"""Attention of a Phi-3 graph: grouped-query attention with KV cache, (partial) rotary embedding and LongRoPE."""

from __future__ import annotations

import math

import numpy as np
from phi3_core.backend import Layer

from .graph_nodes import NodeBuilder
from .graph_weights import split, whole
from .onnx.writer import CONTRIBUTED, INT32, INT64, Graph, Node, Value


class Attention:
    """The attention layers and what they share: sequence lengths and rotary tables."""

    def __init__(self, builder: NodeBuilder) -> None:
        self.builder = builder
        self.shape, self.fused = builder.shape, builder.fused
        add, constant, name = builder.add, builder.constant, "/model/attn_mask"
        one = constant([1])
        counted = add("ReduceSum", f"{name}/ReduceSum", ("attention_mask", one), keepdims=0)
        behind = add("Sub", f"{name}/Sub", (counted, one))
        self.last = add("Cast", f"{name}/Sub/Cast", (behind,), to=INT32)
        """The index of the last token of each row."""
        sizes = add("Shape", f"{name}/Shape", ("attention_mask",))
        self.length = add("Gather", f"{name}/Gather", (sizes, constant(1)), axis=0)
        self.total = add("Cast", f"{name}/Gather/Cast", (self.length,), to=INT32)
        self.positions = "position_ids"
        self.tables = self._tables()

    def _tables(self) -> tuple[str, str]:
        """Return cosine and sine of every position, ``[positions, rotary size / 2]``.

        LongRoPE has two pairs: if the sequence is longer than the original context, all positions use the second.
        """
        rotary, weights = self.shape.rotary, self.builder.weights
        scale = np.float32(rotary.scale)

        def write(frequencies: np.ndarray, length: int) -> list[np.ndarray]:
            angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
            return [np.cos(angles) * scale, np.sin(angles) * scale]

        names = ("cos_cache", "sin_cache")
        if rotary.long is None or rotary.original_context >= self.shape.context:
            for name, table in zip(names, write(rotary.short, self.shape.context), strict=True):
                weights.floats(table, name)
            return names
        short = write(rotary.short, rotary.original_context)
        long = write(rotary.long, self.shape.context)
        if not self.fused:
            for name, *both in zip(names, short, long, strict=True):
                weights.floats(np.concatenate(both), name)
            self._shift(rotary.original_context)
            return names
        for name, first, second in zip(names, short, long, strict=True):
            weights.floats(first, f"{name}_short")
            weights.floats(second, f"{name}_long")
        return self._choose(rotary.original_context)

    def _choose(self, original: int) -> tuple[str, str]:
        """Return the pair of tables selected by the length of the sequence."""
        builder, half = self.builder, self.shape.rotary.size // 2
        beyond = builder.add("Greater", "/model/rotary/Greater", (self.length, builder.constant(original)))

        def branch(kind: str) -> Graph:
            names = ("cos_cache", "sin_cache")
            nodes = [
                Node(
                    operator="Identity",
                    inputs=(f"{name}_{kind}",),
                    outputs=(f"{name}_of_{kind}",),
                    name=f"{name}_{kind}",
                )
                for name in names
            ]
            outputs = [Value(name=f"{name}_of_{kind}", kind=builder.kind, dims=("positions", half)) for name in names]
            return Graph(name=f"{kind}_tables", nodes=nodes, outputs=outputs)

        outputs = ("cos_cache", "sin_cache")
        branches = {"then_branch": branch("long"), "else_branch": branch("short")}
        builder.add("If", "/model/rotary/If", (beyond,), outputs, **branches)
        return outputs

    def _shift(self, original: int) -> None:
        """Select the table by shifting positions: the two are concatenated, because DirectML does not support If."""
        add, name = self.builder.add, "/model/rotary"
        length = self.builder.constant(original)
        highest = add("ReduceMax", f"{name}/ReduceMax", ("position_ids",), keepdims=0)
        beyond = add("GreaterOrEqual", f"{name}/GreaterOrEqual", (highest, length))
        moved = add("Mul", f"{name}/Mul", (add("Cast", f"{name}/Cast", (beyond,), to=INT64), length))
        self.positions = add("Add", f"{name}/Add", (moved, "position_ids"))

    def __call__(self, layer: Layer, index: int, inputs: str) -> str:
        """Return the attention's output, of the shape of its inputs, ``[batch, tokens, hidden]``."""
        shape, name, place = self.shape, f"/model/layers.{index}/attn", f"model.layers.{index}.attn"
        if self.fused:
            (matrix,) = self.builder.weights.matrices(layer.qkv, whole(f"{place}.qkv_proj.MatMul", layer.qkv))
            parts = [self.builder.linear(f"{name}/qkv_proj", inputs, matrix), "", ""]
            tables: tuple[str, str] = self.tables
        else:
            names = [f"{place}.{letter}_proj.MatMul" for letter in "qkv"]
            sizes = (shape.q_width, shape.kv_width, shape.kv_width)
            matrices = self.builder.weights.matrices(layer.qkv, split(names, sizes))
            parts = [
                self.builder.linear(f"{name}/{letter}_proj", inputs, matrix)
                for letter, matrix in zip("qkv", matrices, strict=True)
            ]
            parts[0] = self._turn(f"{name}/q_rotary", parts[0], shape.heads)
            parts[1] = self._turn(f"{name}/k_rotary", parts[1], shape.key_value_heads)
            tables = ("", "")
        past = [f"past_key_values.{index}.{part}" for part in ("key", "value")]
        window = {"local_window_size": shape.window} if shape.window is not None else {}
        seen = self.builder.add(
            "GroupQueryAttention",
            f"{name}/GroupQueryAttention",
            (*parts, *past, self.last, self.total, *tables),
            (f"{name}/output_0", f"present.{index}.key", f"present.{index}.value"),
            domain=CONTRIBUTED,
            num_heads=shape.heads,
            kv_num_heads=shape.key_value_heads,
            scale=1 / math.sqrt(shape.head_size),
            do_rotary=int(self.fused),
            **window,
        )
        (matrix,) = self.builder.weights.matrices(layer.output, whole(f"{place}.o_proj.MatMul", layer.output))
        return self.builder.linear(f"{name}/o_proj", seen, matrix)

    def _turn(self, name: str, inputs: str, heads: int) -> str:
        """Return heads rotated by a separate node, which needs the number of heads only for partial rotation."""
        size = self.shape.rotary.size
        partial = size != self.shape.head_size
        return self.builder.add(
            "RotaryEmbedding",
            f"{name}/RotaryEmbedding",
            (inputs, self.positions, *self.tables),
            domain=CONTRIBUTED,
            num_heads=heads if partial else 0,
            rotary_embedding_dim=size if partial else 0,
        )
