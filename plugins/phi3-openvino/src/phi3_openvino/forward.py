"""The graph's forward pass on a CPU, without a pipeline of OpenVINO GenAI: for one answer, with prompt lookup.

The pipelines confirm several tokens in one pass only if every pass does so, which makes answers slower that do not
quote. Here each pass has as many rows as there are tokens to confirm. See docs/decisions/0033.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops
from openvino._offline_transformations import paged_attention_transformation

_ROWS = "rows"
"""The input with the number of rows at the end for which logits are computed."""
_BLOCK = 32
"""Tokens in a block of the KV cache, on CPUs."""
_SPARE = 8
"""Blocks that a growing cache gets beyond what is needed."""


class StatefulForward:
    """The graph as it is, with SDPA. OpenVINO's state is the KV cache; tokens that are removed from it are masked.

    Args:
        graph: the IR's ``.xml`` file.
        properties: OpenVINO's properties.

    Raises:
        RuntimeError: OpenVINO failed.
    """

    def __init__(self, graph: Path, properties: Mapping[str, Any]) -> None:
        self._request = _compiled(ov.Core().read_model(graph), properties, axis=1).create_infer_request()
        self._beam = np.zeros(1, np.int32)
        self._mask = np.ones((1, 1024), np.int64)
        self._used = 0
        """Places of the cache that hold a token, masked or not."""
        self._places: list[int] = []
        """The places of the tokens that are not masked."""

    def advance(self, ids: Sequence[int], rows: int) -> npt.NDArray[np.float32]:
        """Append ``ids`` to the cache and return the logits of the last ``rows``, ``[rows, vocabulary]``."""
        length, end = len(self._places), self._used + len(ids)
        if end > self._mask.shape[1]:
            more = np.ones((1, 2 * end), np.int64)
            more[:, : self._used] = self._mask[:, : self._used]
            self._mask = more
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": self._mask[:, :end],
            "position_ids": np.arange(length, length + len(ids), dtype=np.int64)[None],
            "beam_idx": self._beam,
            _ROWS: np.array([rows], np.int64),
        }
        found = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        self._places += range(self._used, end)
        self._used = end
        logits: npt.NDArray[np.float32] = found["logits"][0]
        return logits

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the cache."""
        if length == 0:
            self._request.reset_state()
            self._mask[:] = 1
            self._used = 0
        else:
            self._mask[0, self._places[length:]] = 0
        del self._places[length:]


class PagedForward:
    """The graph with paged attention, whose KV cache is a list of blocks. Better for long prompts, and slower to load.

    Args:
        graph: the IR's ``.xml`` file.
        properties: OpenVINO's properties.

    Raises:
        RuntimeError: OpenVINO failed.
    """

    def __init__(self, graph: Path, properties: Mapping[str, Any]) -> None:
        model = ov.Core().read_model(graph)
        paged_attention_transformation(model)
        compiled = _compiled(model, properties, axis=0)
        self._request = compiled.create_infer_request()
        self._ports = {
            name: port for port in compiled.inputs for name in port.get_names() if name.startswith(("key_", "value_"))
        }
        self._cache: dict[str, ov.Tensor] = {}
        self._blocks = 0
        self._length = 0

    def advance(self, ids: Sequence[int], rows: int) -> npt.NDArray[np.float32]:
        """Append ``ids`` to the cache and return the logits of the last ``rows``, ``[rows, vocabulary]``."""
        end = self._length + len(ids)
        blocks = -(-end // _BLOCK)
        if blocks > self._blocks:
            self._grow(max(blocks + _SPARE, 2 * self._blocks))
        inputs = {
            "input_ids": np.array(ids, np.int64),
            "position_ids": np.arange(self._length, end, dtype=np.int64),
            "past_lens": np.array([self._length], np.int32),
            "subsequence_begins": np.array([0, len(ids)], np.int32),
            "block_indices": np.arange(blocks, dtype=np.int32),
            "block_indices_begins": np.array([0, blocks], np.int32),
            "max_context_len": np.array(end, np.int32),
            _ROWS: np.array([rows], np.int64),
        }
        found = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        self._length = end
        logits: npt.NDArray[np.float32] = found["logits"][:, 0]
        return logits

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the cache."""
        self._length = length

    def _grow(self, blocks: int) -> None:
        for name, port in self._ports.items():
            shape = port.partial_shape
            shape[0] = blocks
            tensor = ov.Tensor(port.element_type, shape.to_shape())
            if self._blocks:
                tensor.data[: self._blocks] = self._cache[name].data
            self._cache[name] = tensor
            self._request.set_tensor(name, tensor)
        self._blocks = blocks


def _compiled(model: ov.Model, properties: Mapping[str, Any], *, axis: int) -> ov.CompiledModel:
    """Compile a graph that computes logits for the last rows only, whose number is an input.

    OpenVINO GenAI's pipelines compute them for the last row.

    Args:
        model: changed in place.
        properties: OpenVINO's properties.
        axis: the axis of the tokens.
    """
    matmul = model.output("logits").get_node().input_value(0).get_node()
    while matmul.get_type_name() != "MatMul":
        matmul = matmul.input_value(0).get_node()
    rows = ops.parameter([1], np.int64, name=_ROWS)
    rows.output(0).set_names({_ROWS})
    begin = ops.negative(rows)
    end, step, axes = (ops.constant(np.array([value], np.int64)) for value in (np.iinfo(np.int64).max, 1, axis))
    last = ops.slice(matmul.input_value(0), begin, end, step, axes)
    matmul.input(0).replace_source_output(last.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()
    return ov.Core().compile_model(model, "CPU", dict(properties))
