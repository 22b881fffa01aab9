"""The engine: loads weights with the library and generates token ids from token ids."""

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
"""Chunk sizes of the prefill in rows. Decoding uses one row; no other sizes occur, see ``graph.py``."""
_open: list[NpuEngine] = []


def load(artifact: Artifact, device: Device, context_length: int) -> NpuEngine:
    """Load an artifact that :func:`phi3_npu.opening.check` has accepted.

    Args:
        artifact: the artifact.
        device: the device to load it on.
        context_length: tokens of prompt and answer together.

    Raises:
        BackendError: the device is not available, or this process has loaded a model already.
        ModelError: a tensor is missing.
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
    """A loaded model. Use it in the thread that loaded it only."""

    max_concurrency = 1
    capabilities: frozenset[str] = frozenset({"logits"})

    def __init__(self, graph: Graph, loaded: Library, workspace: Workspace, context_length: int) -> None:
        self.context_length = context_length
        self._graph = graph
        self._library = loaded
        self._workspace = workspace
        self._read: list[tuple[int, ...]] = []
        """The chunks of the prompt that are in the KV cache."""
        self._failed = False

    def close(self) -> None:
        """Free the model and release its workspace."""
        self._library.release()
        self._workspace.close()
        if self in _open:
            _open.remove(self)

    def warm_up(self) -> None:
        """Compile all kernels that generation needs; the workspace keeps them for the next start."""
        with self._workspace.compiling(), self._forward():
            for rows in (*CHUNKS, 1):
                states = self._graph.forward([0], rows)
                self._graph.cache.length = 0
            self._graph.logits(states, 1)

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Yield generated token ids. Closing the iterator stops the generation after the current token.

        Raises:
            BackendError: the library failed in an earlier call.
            PromptTooLongError: the prompt leaves no room for an answer.
            UsageError: the request has a JSON schema.
        """
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
        """Return the logits at every position, ``[ids, vocabulary]``, in float32.

        Raises:
            BackendError: the library failed in an earlier call.
            PromptTooLongError: there are more ids than the context holds.
        """
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
        """Fill the KV cache with ``ids`` and return the states of the last chunk; chunks already cached are reused.

        From the first different chunk on, chunks are processed with the same sizes as without a cache: kernels of
        other sizes round differently, and the output must not depend on earlier requests.
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
        """Guard a use of the library: after an interrupted call, the next call would end the process.

        Raises:
            BackendError: an earlier call was interrupted.
        """
        if self._failed:
            raise BackendError("the library failed before and cannot be used again in this process")
        self._failed = True
        yield
        self._failed = False


def chunks(ids: Sequence[int]) -> list[tuple[int, ...]]:
    """Divide ``ids`` into the chunks of the prefill: as many large ones as possible, then small ones."""
    large, small = CHUNKS
    cut = len(ids) // large * large
    pieces = [tuple(ids[start : start + large]) for start in range(0, cut, large)]
    return pieces + [tuple(ids[start : start + small]) for start in range(cut, len(ids), small)]


def _rows(chunk: tuple[int, ...]) -> int:
    return CHUNKS[0] if len(chunk) == CHUNKS[0] else CHUNKS[1]
