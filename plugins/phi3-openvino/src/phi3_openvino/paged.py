"""The graph with paged attention on a CPU: one pass over parts of several sequences, whose KV cache is in blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

from .paged_memory import reserve

BLOCK = 32
"""Tokens in a block of the KV cache, on CPUs."""
_ROWS = "rows"
"""The input with the indices of the tokens after which logits are computed."""


class Part(NamedTuple):
    """Tokens that a pass appends to a sequence."""

    ids: Sequence[int]
    length: int
    """Tokens of the sequence that the cache has already."""
    blocks: Sequence[int]
    """The numbers of the sequence's blocks, as many as it needs with ``ids``."""
    rows: int
    """Logits are computed after so many of the last ``ids``."""


class PagedGraph:
    """The compiled graph, and the KV cache.

    Args:
        graph: the IR's ``.xml`` file.
        properties: OpenVINO's properties.
        blocks: how many blocks the cache has. Memory is taken as they are first used.

    Raises:
        RuntimeError: OpenVINO failed.
    """

    def __init__(self, graph: Path, properties: Mapping[str, Any], *, blocks: int = 0) -> None:
        model = ov.Core().read_model(graph)
        paged_attention_transformation(model)
        rows = ops.parameter([-1], np.int64, name=_ROWS)
        rows.output(0).set_names({_ROWS})
        matmul = head(model)
        chosen = ops.gather(matmul.input_value(0), rows, ops.constant(np.int64(0)))
        matmul.input(0).replace_source_output(chosen.output(0))
        model.add_parameters([rows])
        model.validate_nodes_and_infer_types()
        compiled = ov.Core().compile_model(model, "CPU", dict(properties))
        self._request = compiled.create_infer_request()
        self._ports = {name: port for port in compiled.inputs for name in port.get_names()}
        self._given: dict[str, npt.NDArray[Any]] = {}
        """The memory of each input besides the cache."""
        self._cache: dict[str, npt.NDArray[np.uint8]] = {}
        self.blocks = 0
        if blocks:
            self.resize(blocks)

    def resize(self, blocks: int) -> None:
        """Give the cache more blocks, and keep what is in those that it has."""
        for name, port in self._ports.items():
            if not name.startswith(("key_", "value_")):
                continue
            partial = port.partial_shape
            partial[0] = blocks
            shape = partial.to_shape()
            memory = reserve(-(-math.prod(shape) * port.element_type.bitwidth // 8))
            if self.blocks:
                kept = self._cache[name]
                memory[: len(kept)] = kept
            self._request.set_tensor(name, ov.Tensor(memory, shape, port.element_type))
            self._cache[name] = memory
        self.blocks = blocks

    def advance(self, parts: Sequence[Part], *, spare: int | None = None) -> npt.NDArray[np.float32]:
        """Append the parts' tokens to their sequences, and return the logits in the order of the parts.

        A single row has other kernels than several, which round differently; from two rows on, a row's bits do not
        depend on how many there are.

        Args:
            parts: at least one token, of sequences that are different from each other.
            spare: a block of no sequence; if it is given, no kernel has a single row.

        Returns:
            Shape ``[rows, vocabulary]``, read before the next call.
        """
        if spare is not None and sum(len(part.ids) for part in parts) == 1:
            parts = [*parts, Part((0,), 0, (spare,), 0)]
        begins = [0, *itertools.accumulate(len(part.ids) for part in parts)]
        rows = [row for part, end in zip(parts, begins[1:], strict=True) for row in range(end - part.rows, end)]
        count = len(rows)
        # A pass has at least one row of logits, whether it is needed or not.
        rows += [0] * (max(1 if spare is None else 2, count) - count)
        self._give("input_ids", [token for part in parts for token in part.ids])
        self._give("position_ids", [at for part in parts for at in range(part.length, part.length + len(part.ids))])
        self._give("past_lens", [part.length for part in parts])
        self._give("subsequence_begins", begins)
        self._give("block_indices", [block for part in parts for block in part.blocks])
        self._give("block_indices_begins", [0, *itertools.accumulate(len(part.blocks) for part in parts)])
        self._give(_ROWS, rows)
        self._give("max_context_len", max(part.length + len(part.ids) for part in parts))
        self._request.infer(share_outputs=True)
        logits: npt.NDArray[np.float32] = self._request.get_output_tensor().data[:count, 0]
        return logits

    def _give(self, name: str, values: Sequence[int] | int) -> None:
        """Set an input: in the memory of the pass before, if that gave as many values."""
        shape = () if isinstance(values, int) else (len(values),)
        given = self._given.get(name)
        if given is None or given.shape != shape:
            given = self._given[name] = np.empty(shape, self._ports[name].element_type.to_dtype())
            self._request.set_tensor(name, ov.Tensor(given, shared_memory=True))
        given[...] = values


def head(model: ov.Model) -> ov.Node:
    """Return the multiplication that makes logits of the last hidden states."""
    matmul = model.output("logits").get_node().input_value(0).get_node()
    while matmul.get_type_name() != "MatMul":
        matmul = matmul.input_value(0).get_node()
    return matmul
