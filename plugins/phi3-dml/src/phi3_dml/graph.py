"""The ONNX graph of a Phi-3 checkpoint, written node by node as onnxruntime-genai takes it.

Inputs ``input_ids`` and ``attention_mask`` (int64, ``[batch, tokens]``; the mask covers the cache too), where heads
are turned apart from attention ``position_ids``, and the cache ``past_key_values.N.key`` and ``.value`` (``[batch,
key heads, keys, head size]``); outputs ``logits`` and ``present.N.key`` and ``.value``.

Two layouts, because the providers' attention differs (``GroupQueryAttention`` of ONNX Runtime 1.24: the CPU's takes
queries, keys and values in one piece, turns them itself and knows the sliding window; DirectML's wants them apart and
turned already, and its kernel sees everything before, whatever the window). The CPU computes in float32, DirectML in
halves.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md describes the operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from phi3_core.quantization.architecture import Architecture
from phi3_core.quantization.checkpoint import Checkpoint, Layer

from .graph_weights import Matrix, StoredWeights, split, whole
from .onnx_writer import CONTRIBUTED, FLOAT, FLOAT16, INT32, INT64, Attribute, Graph, Node, Value

_NORM, _SKIP_NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"


@frozen(kw_only=True)
class Layout:
    """What a provider wants its graph to be like."""

    name: str
    """As in ``Offer.layout``."""
    halves: bool
    """Compute in half precision instead of float32."""
    fused: bool
    """Attention takes queries, keys and values together and turns them itself, if it can; see :func:`is_fused`."""
    explicit_zeros: bool
    """``MatMulNBits`` needs its zero points in writing: DirectML takes those that are left out for 0, not 8 or 128."""
    accuracy: int
    """``accuracy_level`` of ``MatMulNBits``: 4 lets it round its inputs to 8 bits, 0 leaves the choice to it."""


CPU = Layout(name="", halves=False, fused=True, explicit_zeros=False, accuracy=4)
DIRECTML = Layout(name="dml", halves=True, fused=False, explicit_zeros=True, accuracy=0)
LAYOUTS = {layout.name: layout for layout in (CPU, DIRECTML)}


def is_fused(shape: Architecture, layout: Layout) -> bool:
    """The CPU's attention turns heads by multiples of 16 only, in whole or in part."""
    return layout.fused and shape.rotary.size % 16 == 0


def build(checkpoint: Checkpoint, weights: StoredWeights, layout: Layout) -> Graph:
    """The whole graph; the weights go to their file as they are met."""
    return _Builder(checkpoint, weights, layout).build()


class _Builder:
    def __init__(self, checkpoint: Checkpoint, weights: StoredWeights, layout: Layout) -> None:
        self.checkpoint, self.weights, self.layout = checkpoint, weights, layout
        self.shape: Architecture = checkpoint.architecture
        self.fused = is_fused(self.shape, layout)
        self.kind = FLOAT16 if layout.halves else FLOAT
        self.nodes: list[Node] = []

    def build(self) -> Graph:
        shape, weights = self.shape, self.weights
        head, states = self._outer_layers()
        attention = _Attention(self)
        skipped, added = states, ""
        for index, layer in enumerate(self.checkpoint.layers):
            place = f"model.layers.{index}"
            norm = weights.norm(layer.input_norm, layer.qkv, f"{place}.input_layernorm.weight")
            normed, skipped = self._norm(f"/{place}/input_layernorm", skipped, added, norm)
            added = attention(layer, index, normed)
            norm = weights.norm(layer.post_norm, layer.gate_up, f"{place}.post_attention_layernorm.weight")
            normed, skipped = self._norm(f"/{place}/post_attention_layernorm", skipped, added, norm)
            added = self._feed_forward(layer, place, normed)
        norm = weights.norm(self.checkpoint.norm, self.checkpoint.head, "model.norm.weight")
        normed, _ = self._norm("/model/norm", skipped, added, norm, last=True)
        self.linear("/lm_head", normed, head, output="logits")
        return Graph(
            name="phi3",
            nodes=self.nodes,
            inputs=[*self._inputs(), *self._cache("past_key_values", "past_sequence_length")],
            outputs=[
                Value(name="logits", kind=self.kind, dims=("batch_size", "sequence_length", shape.vocabulary)),
                *self._cache("present", "total_sequence_length"),
            ],
            tensors=weights.data.tensors,
        )

    def add(
        self, operator: str, name: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **given: Attribute
    ) -> str:
        """Append a node and name its first output. ``domain`` is an attribute in the caller's eyes."""
        domain = str(given.pop("domain", ""))
        names = tuple(outputs) if outputs else (f"{name}/output_0",)
        self.nodes.append(
            Node(operator=operator, inputs=tuple(inputs), outputs=names, name=name, domain=domain, attributes=given)
        )
        return names[0]

    def constant(self, values: Sequence[int] | int, kind: type = np.int64) -> str:
        """Integers, in the graph itself."""
        array: npt.NDArray[Any] = np.array(values, kind)
        return self.add("Constant", f"/constants/{array.dtype}/{array.tolist()}", (), value=array)

    def _inputs(self) -> list[Value]:
        rows = ("batch_size", "sequence_length")
        given = [
            Value(name="input_ids", kind=INT64, dims=rows),
            Value(name="attention_mask", kind=INT64, dims=("batch_size", "total_sequence_length")),
        ]
        return given if self.fused else [*given, Value(name="position_ids", kind=INT64, dims=rows)]

    def _cache(self, prefix: str, length: str) -> list[Value]:
        dims = ("batch_size", self.shape.key_value_heads, length, self.shape.head_size)
        return [
            Value(name=f"{prefix}.{index}.{part}", kind=self.kind, dims=dims)
            for index in range(self.shape.layers)
            for part in ("key", "value")
        ]

    def _outer_layers(self) -> tuple[Matrix, str]:
        """The output layer's matrix, and what the tokens are embedded as."""
        checkpoint, weights, name = self.checkpoint, self.weights, "/model/embed_tokens"
        table = "model.embed_tokens.weight"
        if self.shape.tied and checkpoint.head.name not in weights.plan.schemes:
            # One matrix serves both; the runtime turns it over once, when it loads.
            (head,) = weights.matrices(checkpoint.head, whole("lm_head.MatMul", checkpoint.head))
            table = self.add("Transpose", f"{name}/Transpose", (head.weight,), perm=(1, 0))
        else:
            weights.table(checkpoint.embedding, table)
            (head,) = weights.matrices(checkpoint.head, whole("lm_head.MatMul", checkpoint.head))
        states = self.add("Gather", f"{name}/Gather", (table, "input_ids"))
        if not self.layout.halves:
            states = self.add("Cast", f"{name}/Cast", (states,), to=FLOAT)
        return head, states

    def _norm(self, name: str, skipped: str, added: str, weight: str, *, last: bool = False) -> tuple[str, str]:
        """RMS norm of a sum, and the sum itself; the first layer has nothing to add yet."""
        epsilon = float(self.shape.epsilon)
        if not added:
            normed = self.add(_NORM, f"{name}/LayerNorm", (skipped, weight), epsilon=epsilon, axis=-1, stash_type=1)
            return normed, skipped
        outputs = (f"{name}/output_0",) if last else (f"{name}/output_0", "", "", f"{name}/output_3")
        self.add(
            _SKIP_NORM,
            f"{name}/SkipLayerNorm",
            (skipped, added, weight),
            outputs,
            epsilon=epsilon,
            domain=CONTRIBUTED,
        )
        return outputs[0], outputs[-1]

    def linear(self, name: str, inputs: str, matrix: Matrix, *, output: str = "") -> str:
        outputs = (output,) if output else None
        if matrix.scheme is None:
            weight = matrix.weight
            if not self.layout.halves:
                weight = self.add("Cast", f"{name}/Cast", (weight,), to=FLOAT)
            return self.add("MatMul", f"{name}/MatMul", (inputs, weight), outputs)
        given: dict[str, Attribute] = {
            "K": matrix.inputs,
            "N": matrix.outputs,
            "bits": matrix.scheme.bits,
            "block_size": matrix.inputs // matrix.scheme.groups(matrix.inputs),
        }
        if self.layout.accuracy:
            given["accuracy_level"] = self.layout.accuracy
        tensors = (matrix.weight, matrix.scales, *([matrix.zeros] if matrix.zeros else []))
        return self.add("MatMulNBits", f"{name}/MatMul", (inputs, *tensors), outputs, domain=CONTRIBUTED, **given)

    def _feed_forward(self, layer: Layer, place: str, inputs: str) -> str:
        """SwiGLU."""
        size, name = self.shape.intermediate, f"/{place}/mlp"
        names = [f"{place}.mlp.{part}_proj.MatMul" for part in ("gate", "up")]
        gate, up = self.weights.matrices(layer.gate_up, split(names, (size, size)))
        gated = self.linear(f"{name}/gate_proj", inputs, gate)
        raised = self.linear(f"{name}/up_proj", inputs, up)
        curve = self.add("Sigmoid", f"{name}/act_fn/Sigmoid", (gated,))
        curve = self.add("Mul", f"{name}/act_fn/Mul", (gated, curve))
        inner = self.add("Mul", f"{name}/Mul", (curve, raised))
        (down,) = self.weights.matrices(layer.down, whole(f"{place}.mlp.down_proj.MatMul", layer.down))
        return self.linear(f"{name}/down_proj", inner, down)


class _Attention:
    """What all layers' attention shares in one pass: lengths and rotary tables."""

    def __init__(self, builder: _Builder) -> None:
        self.builder = builder
        self.shape, self.fused = builder.shape, builder.fused
        add, constant, name = builder.add, builder.constant, "/model/attn_mask"
        one = constant([1])
        counted = add("ReduceSum", f"{name}/ReduceSum", ("attention_mask", one), keepdims=0)
        behind = add("Sub", f"{name}/Sub", (counted, one))
        self.last = add("Cast", f"{name}/Sub/Cast", (behind,), to=INT32)
        """Of each row, the place of its last token."""
        sizes = add("Shape", f"{name}/Shape", ("attention_mask",))
        self.keys = add("Gather", f"{name}/Gather", (sizes, constant(1)), axis=0)
        self.total = add("Cast", f"{name}/Gather/Cast", (self.keys,), to=INT32)
        self.positions = "position_ids"
        self.tables = self._tables()

    def _tables(self) -> tuple[str, str]:
        """Cosine and sine of every position, ``[positions, rotary size / 2]``.

        Longrope has two: as soon as the sequence is longer than the original context, all positions use the second.
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
        """One pair of tables or the other, by the length of the sequence."""
        builder, half = self.builder, self.shape.rotary.size // 2
        beyond = builder.add("Greater", "/model/rotary/Greater", (self.keys, builder.constant(original)))

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
        """Without If, which DirectML lacks: the tables lie behind one another, and positions move to the second."""
        add, name = self.builder.add, "/model/rotary"
        length = self.builder.constant(original)
        highest = add("ReduceMax", f"{name}/ReduceMax", ("position_ids",), keepdims=0)
        beyond = add("GreaterOrEqual", f"{name}/GreaterOrEqual", (highest, length))
        moved = add("Mul", f"{name}/Mul", (add("Cast", f"{name}/Cast", (beyond,), to=INT64), length))
        self.positions = add("Add", f"{name}/Add", (moved, "position_ids"))

    def __call__(self, layer: Layer, index: int, inputs: str) -> str:
        """``[batch, tokens, hidden]`` to the same."""
        shape, name, place = self.shape, f"/model/layers.{index}/attn", f"model.layers.{index}.attn"
        if self.fused:
            (matrix,) = self.builder.weights.matrices(layer.qkv, whole(f"{place}.qkv_proj.MatMul", layer.qkv))
            parts = [self.builder.linear(f"{name}/qkv_proj", inputs, matrix), "", ""]
            tables: tuple[str, str] = self.tables
        else:
            names = [f"{place}.{letter}_proj.MatMul" for letter in "qkv"]
            sizes = (shape.queries, shape.keys, shape.keys)
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
        """The rotary embedding on its own. Which heads there are has to be said only if they turn in part."""
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
