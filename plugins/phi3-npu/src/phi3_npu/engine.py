"""The engine: loads weights with the library and generates token ids from token ids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
from attrs import evolve
from phi3_core.backend import Decoder, answer_capabilities, chunks
from phi3_core.errors import BackendError, PromptTooLongError
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
    capabilities: frozenset[str] = answer_capabilities() | {"logits"}

    def __init__(self, graph: Graph, loaded: Library, workspace: Workspace, context_length: int) -> None:
        self.context_length = context_length
        self._graph = graph
        self._library = loaded
        self._workspace = workspace
        self._decoder = Decoder(self, plan=lambda ids: chunks(ids, *CHUNKS))
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
            UsageError: the request's JSON schema cannot be followed.
        """
        prompt = request.prompt_ids
        room = self.context_length - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens, and the context holds {self.context_length}, the answer included"
            )
        yield from self._decoder.generate(evolve(request, max_new_tokens=min(request.max_new_tokens, room)))

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits at every position, ``[ids, vocabulary]``, in float32.

        Raises:
            BackendError: the library failed in an earlier call.
            PromptTooLongError: there are more ids than the context holds.
        """
        if len(ids) > self.context_length:
            raise PromptTooLongError(f"{len(ids)} tokens do not fit the context of {self.context_length}")
        with self._workspace.compiling():
            return self._decoder.logits(ids)

    def advance(self, ids: Sequence[int], rows: int) -> np.ndarray:
        """Append ``ids`` to the KV cache and return the logits of the last ``rows``, ``[rows, vocabulary]``.

        Args:
            ids: a chunk of a prompt, or the last token.
            rows: 1 or the length of the chunk.

        Raises:
            BackendError: the library failed in an earlier call.
        """
        with self._forward():
            states = self._graph.forward(list(ids), _rows(ids))
            logits = self._graph.logits(states[-1:], 1) if rows == 1 else self._graph.logits(states, _rows(ids))
            found: np.ndarray = logits.numpy()
            return found

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the KV cache."""
        self._graph.cache.length = length

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


def _rows(ids: Sequence[int]) -> int:
    """Return the number of rows of the kernel for a chunk, or for the last token."""
    return next(size for size in (1, *reversed(CHUNKS)) if len(ids) <= size)
