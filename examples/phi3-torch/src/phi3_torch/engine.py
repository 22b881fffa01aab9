"""The engine: runs a checkpoint with transformers' Phi-3, and generates token ids from token ids."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from phi3_core.backend import Checkpoint, Decoder, answer_capabilities, check_options, chunks, read_limits, thread_limit
from phi3_core.errors import BackendError, UsageError
from phi3_core.values import Artifact, Device, GenerationRequest, Progress
from transformers import DynamicCache, Phi3ForCausalLM

CHUNK = 128
"""Tokens of a prompt that are read at a time; only whole chunks are kept for the next prompt."""
_THREADS = "num_threads"
logger = logging.getLogger("phi3_core.torch")


def load(
    artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str, progress: Progress
) -> TorchEngine:
    """Load an artifact.

    CPUs compute in float32, and so do evaluations; GPUs generate in the 16 bits that the weights are stored in.

    Raises:
        BackendError: the device is gone.
        ModelError: the weights are damaged.
        UsageError: an option is unknown or has an invalid value.
    """
    check_options("torch", options, known=(_THREADS,))
    threads = options.get(_THREADS) or thread_limit()
    if threads is not None:
        if not (str(threads).isdecimal() and 0 < int(threads) < 1024):
            raise UsageError(f"the option {_THREADS} is a number of threads, not {threads!r}")
        torch.set_num_threads(int(threads))
    stored = Checkpoint.open(artifact.path).embedding.dtype  # checks every file
    limits = read_limits(artifact)
    context = limits.require_context_length()
    if limits.longrope_limit is not None:
        # Beyond it other factors apply to all positions, and what the KV cache holds is no longer valid.
        context = limits.longrope_limit
        logger.warning("the context is limited to %d tokens, up to which longrope's short factors apply", context)
    dtype = torch.float32
    if device.kind != "cpu" and purpose != "evaluation":
        dtype = torch.bfloat16 if stored == "BF16" else torch.float16
    progress("reading the weights")
    try:
        model: Any = Phi3ForCausalLM.from_pretrained(artifact.path, dtype=dtype, local_files_only=True)
        progress(f"moving the model to {device}")
        model.to(device.id.lower().replace(".", ":"))
    except RuntimeError as error:
        raise BackendError(f"PyTorch cannot load the model: {error}") from error
    return TorchEngine(model.eval(), context)


class TorchEngine:
    """A loaded model, with the KV cache of one sequence: the ``Forward`` of a :class:`~phi3_core.backend.Decoder`."""

    max_concurrency = 1
    capabilities: frozenset[str] = answer_capabilities() | {"logits"}

    def __init__(self, model: Any, context_length: int) -> None:
        self.context_length = context_length
        self._model = model
        self._cache = DynamicCache()
        self._decoder = Decoder(self, plan=lambda ids: chunks(ids, CHUNK))

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Yield the ids of an answer."""
        return self._decoder.generate(request)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits after every position, ``[ids, vocabulary]``, in float32."""
        self._decoder.forget()
        return self.advance(ids, len(ids))

    # --8<-- [start:forward]
    def advance(self, ids: Sequence[int], rows: int) -> np.ndarray:
        """Append ids to the KV cache, and return the logits after each of the last ``rows`` of them."""
        with torch.inference_mode():
            inputs = torch.tensor([ids], device=self._model.device)
            output = self._model(inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=rows)
            found: np.ndarray = output.logits[0].float().cpu().numpy()
        return found

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the KV cache."""
        if length:
            self._cache.crop(length)
        else:
            self._cache = DynamicCache()

    # --8<-- [end:forward]
    def close(self) -> None:
        """Free the model and the KV cache. Closing it again does nothing."""
        self._cache, self._model = DynamicCache(), None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
