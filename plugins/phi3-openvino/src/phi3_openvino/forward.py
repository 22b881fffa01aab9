"""The graph's forward pass on a CPU, without a pipeline of OpenVINO GenAI: for one answer, with prompt lookup.

The pipelines confirm several tokens in one pass only if every pass does so, which makes answers slower that do not
quote. Here each pass has as many rows as there are tokens to confirm. See docs/decisions/0033.

OpenVINO packs the weights for its kernels in the first pass, for most of the loading time. So a pass over one token is
part of loading: the time to the first token is then that of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from .paged import BLOCK, PagedGraph, Part, head

_ROWS = "rows"
"""The input with the number of rows at the end for which logits are computed."""
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
        self._request = _compiled(ov.Core().read_model(graph), properties).create_infer_request()
        self._beam = np.zeros(1, np.int32)
        self._mask = np.ones((1, 1024), np.int64)
        self._used = 0
        """Places of the cache that hold a token, masked or not."""
        self._places: list[int] = []
        """The places of the tokens that are not masked."""
        self.advance([0], 1)
        self.rewind(0)

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
        self._graph = PagedGraph(graph, properties)
        self._length = 0
        self.advance([0], 1)
        self.rewind(0)

    def advance(self, ids: Sequence[int], rows: int) -> npt.NDArray[np.float32]:
        """Append ``ids`` to the cache and return the logits of the last ``rows``, ``[rows, vocabulary]``."""
        blocks = -(-(self._length + len(ids)) // BLOCK)
        if blocks > self._graph.blocks:
            self._graph.resize(max(blocks + _SPARE, 2 * self._graph.blocks))
        logits = self._graph.advance([Part(ids, self._length, range(blocks), rows)])
        self._length += len(ids)
        return logits

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the cache."""
        self._length = length


def _compiled(model: ov.Model, properties: Mapping[str, Any]) -> ov.CompiledModel:
    """Compile a graph that computes logits for the last rows only, whose number is an input.

    OpenVINO GenAI's pipelines compute them for the last row.

    Args:
        model: changed in place.
        properties: OpenVINO's properties.
    """
    matmul = head(model)
    rows = ops.parameter([1], np.int64, name=_ROWS)
    rows.output(0).set_names({_ROWS})
    begin = ops.negative(rows)
    end, step, axes = (ops.constant(np.array([value], np.int64)) for value in (np.iinfo(np.int64).max, 1, 1))
    last = ops.slice(matmul.input_value(0), begin, end, step, axes)
    matmul.input(0).replace_source_output(last.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()
    return ov.Core().compile_model(model, "CPU", dict(properties))
