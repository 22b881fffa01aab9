"""A builder of graph nodes: operators, constants and linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from phi3_core.backend import Checkpoint

from .graph_weights import Matrix, StoredWeights
from .layouts import Layout, is_fused
from .onnx.writer import CONTRIBUTED, FLOAT, FLOAT16, Attribute, Node


class NodeBuilder:
    """Collects the nodes of a checkpoint's graph."""

    def __init__(self, checkpoint: Checkpoint, weights: StoredWeights, layout: Layout) -> None:
        self.checkpoint, self.weights, self.layout = checkpoint, weights, layout
        self.shape = checkpoint.architecture
        self.fused = is_fused(self.shape, layout)
        self.kind = FLOAT16 if layout.float16 else FLOAT
        self.nodes: list[Node] = []

    def add(
        self, operator: str, name: str, inputs: Sequence[str], outputs: Sequence[str] | None = None, **given: Attribute
    ) -> str:
        """Append a node and return the name of its first output.

        Args:
            operator: the operator.
            name: the name of the node.
            inputs: the names of its inputs.
            outputs: the names of its outputs; by default one, derived from the node's name.
            **given: its attributes, and ``domain``, the domain of the operator.
        """
        domain = str(given.pop("domain", ""))
        names = tuple(outputs) if outputs else (f"{name}/output_0",)
        self.nodes.append(
            Node(operator=operator, inputs=tuple(inputs), outputs=names, name=name, domain=domain, attributes=given)
        )
        return names[0]

    def constant(self, values: Sequence[int] | int, kind: type = np.int64) -> str:
        """Append a constant of integers and return its name."""
        array: npt.NDArray[Any] = np.array(values, kind)
        return self.add("Constant", f"/constants/{array.dtype}/{array.tolist()}", (), value=array)

    def linear(self, name: str, inputs: str, matrix: Matrix, *, output: str = "") -> str:
        """Append a linear layer and return the name of its output.

        Args:
            name: the prefix of the names of its nodes.
            inputs: the name of its input.
            matrix: its weight.
            output: the name of its output; by default derived from the node's name.
        """
        outputs = (output,) if output else None
        if matrix.scheme is None:
            weight = matrix.weight
            if not self.layout.float16:
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
