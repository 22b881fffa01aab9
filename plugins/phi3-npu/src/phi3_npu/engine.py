"""Load weights with the library, and generate: ids in, ids out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
import torch
from phi3_core.backend import Sampler
from phi3_core.errors import BackendError, PromptTooLongError, UsageError
from phi3_core.values import Artifact, Device, GenerationRequest

from . import library
from .graph import Graph
from .library import Library
from .workspace import Workspace

CHUNKS = (128, 32)
"""Rows that a prompt is read in. Besides them there is only the single row of a token; see ``graph.py``."""
_open: list[NpuEngine] = []


def load(artifact: Artifact, device: Device, context_length: int) -> NpuEngine:
    """Load a folder that :func:`phi3_npu.opening.check` found nothing wrong with.

    Raises:
        ModelError: a tensor is missing.
        BackendError: the device is not there, or the process has a model already.
    """
    if _open:
        raise BackendError("a model is loaded in this process already, and the library takes one")
    folder = artifact.path.absolute()
    workspace = Workspace.take(artifact, device, version("intel-npu-acceleration-library"))
    try:
        loaded = library.enter(workspace.folder, device.id)
        engine = NpuEngine(Graph(folder, loaded), loaded, workspace, context_length)
        engine.warm_up()
    except BaseException:
        workspace.close()
        raise
    _open.append(engine)
    return engine


class NpuEngine:
    """A model on the library, driven by the thread that loaded it."""

    max_concurrency = 1
    capabilities: frozenset[str] = frozenset({"logits"})

    def __init__(self, graph: Graph, loaded: Library, workspace: Workspace, context_length: int) -> None:
        self.context_length = context_length
        self._graph = graph
        self._library = loaded
        self._workspace = workspace
        self._read: list[tuple[int, ...]] = []
        """The chunks that the cache of keys and values begins with."""
        self._failed = False

    def close(self) -> None:
        self._library.release()
        self._workspace.close()
        if self in _open:
            _open.remove(self)

    def warm_up(self) -> None:
        """Have every kernel that generating needs compiled, and kept for the next start."""
        with self._workspace.compiling(), self._forward():
            for rows in (*CHUNKS, 1):
                states = self._graph.forward([0], rows)
                self._graph.cache.length = 0
            self._graph.logits(states, 1)

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Read the prompt in chunks, then go on token by token. Closing the iterator stops it between tokens."""
        prompt = request.prompt_ids
        room = self.context_length - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens, and the context holds {self.context_length}, the answer included"
            )
        if request.json_schema is not None:
            raise UsageError("npu does not follow a JSON schema")
        sampler = Sampler(request.sampling, prompt)
        with self._forward():
            states = self._prefill(prompt)
        for left in range(min(request.max_new_tokens, room), 0, -1):
            with self._forward():
                logits = self._graph.logits(states[-1:], 1)
            token = sampler.pick(logits[0].numpy())
            if token in request.stop_ids:
                return
            yield token
            if left > 1:
                with self._forward():
                    states = self._graph.forward([token], 1)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """The logits after every position, ``[ids, vocabulary]``."""
        if len(ids) > self.context_length:
            raise PromptTooLongError(f"{len(ids)} tokens do not fit the context of {self.context_length}")
        rows = np.empty((len(ids), self._graph.vocabulary), np.float32)
        with self._workspace.compiling(), self._forward():
            self._rewind([])
            for chunk in chunks(ids):
                start = self._graph.cache.length
                states = self._graph.forward(list(chunk), _rows(chunk))
                rows[start : start + len(chunk)] = self._graph.logits(states, _rows(chunk)).numpy()
                self._read.append(chunk)
        return rows

    def _prefill(self, ids: Sequence[int]) -> torch.Tensor:
        """The states after the last chunk of ``ids``. Chunks that were read before are not read again.

        What differs is read anew from the start of its chunk, as a first reading would: kernels of other sizes round
        differently, and what comes out shall not depend on what was asked before.
        """
        plan = chunks(ids)
        same = 0
        while same < min(len(plan) - 1, len(self._read)) and plan[same] == self._read[same]:
            same += 1
        self._rewind(plan[:same])
        for chunk in plan[same:]:
            states = self._graph.forward(list(chunk), _rows(chunk))
            self._read.append(chunk)
        return states

    def _rewind(self, kept: list[tuple[int, ...]]) -> None:
        self._read = kept
        self._graph.cache.length = sum(map(len, kept))

    @contextlib.contextmanager
    def _forward(self) -> Iterator[None]:
        """Around every use of the library, which ends the process if it is used again after it was interrupted."""
        if self._failed:
            raise BackendError("the library failed before and cannot be used again in this process")
        self._failed = True
        yield
        self._failed = False


def chunks(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """``ids`` in the pieces that they are read in: as many large ones as there are, then small ones."""
    large, small = CHUNKS
    cut = len(ids) // large * large
    pieces = [tuple(ids[start : start + large]) for start in range(0, cut, large)]
    return pieces + [tuple(ids[start : start + small]) for start in range(cut, len(ids), small)]


def _rows(chunk: tuple[int, ...]) -> int:
    return CHUNKS[0] if len(chunk) == CHUNKS[0] else CHUNKS[1]
