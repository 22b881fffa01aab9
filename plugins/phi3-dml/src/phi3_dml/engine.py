"""The engine: loads an ONNX folder with ONNX Runtime GenAI and generates token ids from token ids.

onnxruntime-genai allocates a generator's KV cache for ``max_length`` tokens, never releases the GIL, and on DirectML
cannot extend a filled cache. A generator is therefore created for the length that a request needs. It is reused for the
next request if the execution provider can rewind it: phi3-core's decoder then samples from its logits, so that any
request can use what is cached, whatever its sampling settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any

import numpy as np
from phi3_core.backend import Decoder, answer_capabilities
from phi3_core.backend import chunks as even_chunks
from phi3_core.errors import BackendError, ModelError, PromptTooLongError, UsageError
from phi3_core.values import Artifact, Device, GenerationRequest

from . import catalogue, opening
from .forward import GeneratorForward, append, line
from .idle import IdleWork
from .opening import Opening
from .search import guide, search_options

# Disables telemetry; read when the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime_genai as og

_ROOM = 512
"""The KV cache of a conversation is a multiple of this many tokens, so that several turns fit."""
CHUNK = 32
"""Tokens of a prompt that are read at a time on CPUs. See docs/decisions/0028."""
_CHUNK_ON_GPUS = 512
"""The same on GPUs, which more rows at a time keep busy."""
_PROPOSALS = 8
"""Tokens that prompt lookup proposes at most."""


def load(artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str) -> OnnxEngine:
    """Load an artifact.

    Args:
        artifact: a folder with ``genai_config.json``.
        device: the device to load it on.
        options: ONNX Runtime session options, and an execution provider of Windows ML's catalogue.
        purpose: ``answer``, ``conversation`` or ``evaluation``.

    Raises:
        BackendError: ONNX Runtime failed, or the device's index belongs to another adapter.
        ModelError: the folder is damaged, is not for this device, or contains settings that are not allowed.
        UsageError: an option is unknown or invalid.
    """
    opened = opening.check(artifact, device, options)
    if opened.requested is not None:
        name = catalogue.register(opened.requested, og.register_execution_provider_library)
        opened = opening.with_provider(opened, name)
    made_here = "phi3-dml" in artifact.manifest.get("tools", ())
    return OnnxEngine(_open(artifact, opened), opened, roomy=purpose == "conversation", made_here=made_here)


def _open(artifact: Artifact, opened: Opening) -> Any:
    provider = opened.provider
    try:
        config = og.Config(str(artifact.path))
    except RuntimeError as error:  # an older runtime does not know every setting that is allowed
        hint = "use a newer onnxruntime-genai, or phi3 quantize the original weights"
        raise ModelError(
            f"{artifact.path} is not for onnxruntime-genai {og.__version__}: {line(error)}", hint=hint
        ) from error
    config.clear_providers()
    if provider.name is not None:
        config.append_provider(provider.name)
        for key, value in provider.options.items():
            config.set_provider_option(provider.name, key, value)
    # onnxruntime-genai returns the logits of the last id that is not padding. No input is padded here, so a pad id of
    # -1 prevents it from treating a real id as padding.
    # For the type phi3, some versions recompute the cache at token 4,097 whether the model needs it or not, and others
    # never do. This engine does it when needed; the type llama disables it in the runtime.
    overlay: dict[str, Any] = {
        "model": {"type": "llama", "pad_token_id": -1},
        "search": {"past_present_share_buffer": True},
    }
    decoder: dict[str, Any] = {}
    if opened.session:
        decoder["session_options"] = dict(opened.session)
    if opened.sliding_window:
        # The runtime would allocate little more than the window, of which a generator cannot be rewound, and in which
        # graphs that do not evict fail. The graph's attention has the window; a cache of full length is always right.
        decoder["sliding_window"] = {"window_size": 0, "slide_inputs": False, "slide_key_value_cache": False}
    if decoder:
        overlay["model"]["decoder"] = decoder
    config.overlay(json.dumps(overlay))
    try:
        return og.Model(config)
    except RuntimeError as error:
        raise BackendError(f"loading {artifact.path} failed: {line(error)}") from error


class OnnxEngine:
    """A loaded model, and the generator of the last request."""

    max_concurrency = 1

    def __init__(self, model: Any, opened: Opening, *, roomy: bool, made_here: bool) -> None:
        self.context_length = opened.context
        self._vocabulary = opened.vocabulary
        self._model: Any = model
        self._rewinds = opened.provider.rewinds
        self._original = opened.original
        self._roomy = roomy
        self._idle = IdleWork()
        lookup = self._rewinds and (made_here or self._gives_all_rows())
        words = {"logits": True, "rewind": self._rewinds, "lookup": lookup}
        # Where phi3-core does not choose the tokens, onnxruntime-genai follows schemas itself.
        guided = answer_capabilities() if self._rewinds else {"json_schema"}
        self.capabilities = frozenset(word for word, there in words.items() if there) | guided
        size = _CHUNK_ON_GPUS if opened.provider.float16 else CHUNK
        self._forward = GeneratorForward(self._make, opened.vocabulary)
        self._decoder = Decoder(
            self._forward,
            plan=lambda ids: chunks(ids, size, opened.original),
            proposals=_PROPOSALS if lookup else 0,
            short=opened.original,
        )

    def close(self) -> None:
        """Free the model."""
        self._idle.stop()
        self._forget()
        self._model = None

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits at every position, ``[ids, vocabulary]``, in float32.

        Raises:
            BackendError: the graph returns logits of the last position only, or there is too little memory.
        """
        self._idle.stop()
        self._forget()
        self._forward.reserve(len(ids) + 1)
        found: np.ndarray = self._forward.advance(ids, len(ids))
        return found

    def _gives_all_rows(self) -> bool:
        """Return whether the graph gives the logits of more than the last token; model builders can leave them out."""
        generator = self._make(3)
        try:
            append(generator, (0, 0))
            return len(generator.get_output("logits")[0]) == 2
        except RuntimeError:  # the first answer meets it again, and says so
            return False

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Yield generated token ids. Each is computed when it is requested.

        Raises:
            BackendError: ONNX Runtime failed.
            PromptTooLongError: prompt and answer do not fit the context.
            UsageError: the request contains unknown token ids, or its JSON schema is invalid or not supported.
        """
        self._check(request)
        self._idle.stop()
        if self._samples_here(request):
            yield from self._sample_here(request)
            return
        stops = frozenset(request.stop_ids)
        for _, token in zip(range(request.max_new_tokens), self._sample_in_runtime(request), strict=False):
            if token in stops:
                return
            yield token

    def _samples_here(self, request: GenerationRequest) -> bool:
        """Return whether phi3-core chooses the tokens, and not onnxruntime-genai, which follows schemas, too."""
        return self._rewinds and (request.json_schema is None or request.grammar is not None)

    def _check(self, request: GenerationRequest) -> None:
        """Check what onnxruntime-genai would accept silently or reject with a confusing message."""
        needed = len(request.prompt_ids) + request.max_new_tokens
        if needed > self.context_length:
            raise PromptTooLongError(
                f"{len(request.prompt_ids)} tokens of prompt and {request.max_new_tokens} of answer are more than "
                f"the context of {self.context_length}"
            )
        if request.json_schema is not None and not self._samples_here(request):
            self._check_guided(request, needed)
        if not all(0 <= token < self._vocabulary for token in request.prompt_ids):
            raise UsageError(f"a token of the prompt is not among the {self._vocabulary} of the vocabulary")

    def _check_guided(self, request: GenerationRequest, needed: int) -> None:
        """Check a request whose JSON schema onnxruntime-genai follows, in one generator and from the beginning."""
        if request.answered:
            raise BackendError("an answer that follows a JSON schema cannot go on here")
        if self._crosses_longrope_limit(len(request.prompt_ids), needed):
            raise UsageError(
                f"with a JSON schema, prompt and answer have to stay within {self._original} tokens, where the model "
                f"changes over to its long context",
                hint="ask for fewer tokens",
            )
        if request.lookup == "on":
            raise UsageError("a JSON schema and prompt lookup exclude each other", hint="leave --lookup out")

    def _sample_here(self, request: GenerationRequest) -> Iterator[int]:
        """Yield ids that phi3-core samples from the generator's logits, so that any request can reuse the KV cache.

        In onnxruntime-genai, sampling settings and the random state belong to a generator: with its own sampling,
        only requests with the same settings could reuse the cache, and the random numbers would depend on the request
        before.
        """
        ids = list(request.prompt_ids)
        limit = len(ids) + request.max_new_tokens
        if limit > self._forward.capacity:
            self._forget()
            self._forward.reserve(self._room(limit))
        try:
            with closing(self._decoder.generate(request)) as answer:
                for token in answer:
                    ids.append(token)
                    yield token
        finally:
            if self._roomy and self._forward.capacity:
                self._idle.start(self._read_ahead(ids))

    def _read_ahead(self, ids: Sequence[int]) -> Iterator[None]:
        with suppress(BackendError):  # the next request meets it again, and says so
            yield from self._decoder.read_ahead(ids)

    def _crosses_longrope_limit(self, cached: int, length: int) -> bool:
        """Return whether a cached sequence and its continuation use different LongRoPE factors."""
        return self._original is not None and cached > 0 and (cached > self._original) != (length > self._original)

    def _sample_in_runtime(self, request: GenerationRequest) -> Iterator[int]:
        """Yield ids that onnxruntime-genai samples, with a new generator."""
        ids = list(request.prompt_ids)
        limit = len(ids) + request.max_new_tokens
        self._forget()
        while True:
            try:
                generator = self._make(limit, request, done=len(ids) - len(request.prompt_ids))
                append(generator, ids)
                started = len(ids)
                while len(ids) < limit and not generator.is_done():
                    if started < len(ids) and self._crosses_longrope_limit(started, len(ids)):
                        break
                    generator.generate_next_token()
                    token = int(generator.get_next_tokens()[0])
                    yield token
                    ids.append(token)
            except RuntimeError as error:
                raise BackendError(line(error)) from error
            if len(ids) >= limit or request.json_schema is not None:
                return
            # is_done() is also true after a stop id of the configuration that is not one of the request's.

    def _room(self, limit: int) -> int:
        return min(self.context_length, -(-limit // _ROOM) * _ROOM) if self._roomy else limit

    def _make(self, length: int, request: GenerationRequest | None = None, *, done: int = 0) -> Any:
        """Return a new generator with capacity for ``length`` tokens and a request's settings, by default greedy."""
        settings = og.GeneratorParams(self._model)
        settings.set_search_options(max_length=min(length, self.context_length), **search_options(request, done))
        if request is not None and request.json_schema is not None:
            guide(settings, request.json_schema)
        try:
            return og.Generator(self._model, settings)
        except RuntimeError as error:
            if request is not None and request.json_schema is not None:
                raise UsageError(f"the JSON schema cannot be followed: {line(error)}") from error
            raise BackendError(f"no room for {length} tokens: {line(error)}") from error

    def _forget(self) -> None:
        self._forward.drop()
        self._decoder.forget()


def chunks(ids: Sequence[int], size: int, longrope_limit: int | None) -> list[tuple[int, ...]]:
    """Divide ``ids`` into the chunks of the prefill.

    Args:
        ids: at least one token id.
        size: the number of tokens in every chunk but the last, and but the first of a long sequence.
        longrope_limit: the longest sequence that uses LongRoPE's short factors. The first chunk of a longer sequence
            exceeds it, so that all chunks are read with the long factors.
    """
    if longrope_limit is None or len(ids) <= longrope_limit:
        return even_chunks(ids, size)
    first = (longrope_limit // size + 1) * size
    return [tuple(ids[:first]), *even_chunks(ids[first:], size)]
