"""The ONNX graph of a Phi-3 checkpoint for onnxruntime-genai, built node by node.

Inputs are ``input_ids`` and ``attention_mask`` (int64, ``[batch, tokens]``; the mask covers the KV cache too),
``position_ids`` if the rotary embedding is a separate node, and the cache ``past_key_values.N.key`` and ``.value``
(``[batch, key heads, keys, head size]``). Outputs are ``logits`` and ``present.N.key`` and ``.value``.
"""

from __future__ import annotations

from phi3_core.backend import Checkpoint, Layer

from .graph_attention import Attention
from .graph_nodes import NodeBuilder
from .graph_weights import Matrix, StoredWeights, split, whole
from .layouts import Layout
from .onnx.writer import CONTRIBUTED, FLOAT, INT64, Graph, Value

_NORM, _SKIP_NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"


def build(checkpoint: Checkpoint, weights: StoredWeights, layout: Layout) -> Graph:
    """Return the graph of a checkpoint and write its weights to their file.

    Args:
        checkpoint: the original weights.
        weights: writes the weights.
        layout: the layout of the graph.
    """
    return _GraphBuilder(checkpoint, weights, layout).build()


class _GraphBuilder(NodeBuilder):
    def build(self) -> Graph:
        shape, weights = self.shape, self.weights
        head, states = self._outer_layers()
        attention = Attention(self)
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
        """Return the matrix of the output layer, and the embedded tokens."""
        checkpoint, weights, name = self.checkpoint, self.weights, "/model/embed_tokens"
        table = "model.embed_tokens.weight"
        if self.shape.tied and checkpoint.head.name not in weights.plan.schemes:
            # Both use one matrix; the runtime transposes it once, when it loads the graph.
            (head,) = weights.matrices(checkpoint.head, whole("lm_head.MatMul", checkpoint.head))
            table = self.add("Transpose", f"{name}/Transpose", (head.weight,), perm=(1, 0))
        else:
            weights.table(checkpoint.embedding, table)
            (head,) = weights.matrices(checkpoint.head, whole("lm_head.MatMul", checkpoint.head))
        states = self.add("Gather", f"{name}/Gather", (table, "input_ids"))
        if not self.layout.float16:
            states = self.add("Cast", f"{name}/Cast", (states,), to=FLOAT)
        return head, states

    def _norm(self, name: str, skipped: str, added: str, weight: str, *, last: bool = False) -> tuple[str, str]:
        """Return the RMSNorm of the sum of ``skipped`` and ``added``, and the sum. ``added`` is empty at first."""
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

    def _feed_forward(self, layer: Layer, place: str, inputs: str) -> str:
        """Return the output of the SwiGLU feed-forward layer."""
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
