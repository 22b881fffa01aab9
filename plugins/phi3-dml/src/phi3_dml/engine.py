"""The engine: loads an ONNX folder with ONNX Runtime GenAI and generates token ids from token ids.

onnxruntime-genai allocates a generator's KV cache for ``max_length`` tokens, never releases the GIL, and on DirectML
cannot extend a filled cache. A generator is therefore created for the length that a request needs. It is reused for the
next request if the execution provider can rewind it; prompts are then read in chunks, of which whole ones are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from phi3_core.backend import Sampler
from phi3_core.backend import chunks as even_chunks
from phi3_core.errors import BackendError, ModelError, PromptTooLongError, UsageError
from phi3_core.values import Artifact, Device, GenerationRequest

from . import catalogue, opening
from .idle import IdleWork
from .opening import Opening

# Disables telemetry; read when the library is loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime_genai as og

_ROOM = 512
"""The KV cache of a conversation is a multiple of this many tokens, so that several turns fit."""
CHUNK = 32
"""Tokens of a prompt that are read at a time on CPUs. See docs/decisions/0028."""
_CHUNK_ON_GPUS = 512
"""The same on GPUs, which more rows at a time keep busy."""


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
    return OnnxEngine(_open(artifact, opened), opened, roomy=purpose == "conversation")


def _open(artifact: Artifact, opened: Opening) -> Any:
    provider = opened.provider
    try:
        config = og.Config(str(artifact.path))
    except RuntimeError as error:  # an older runtime does not know every setting that is allowed
        hint = "use a newer onnxruntime-genai, or phi3 quantize the original weights"
        raise ModelError(
            f"{artifact.path} is not for onnxruntime-genai {og.__version__}: {_line(error)}", hint=hint
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
        raise BackendError(f"loading {artifact.path} failed: {_line(error)}") from error


class OnnxEngine:
    """A loaded model, and the generator of the last request."""

    max_concurrency = 1

    def __init__(self, model: Any, opened: Opening, *, roomy: bool) -> None:
        self.context_length = opened.context
        words = {"json_schema", "logits"} | ({"rewind"} if opened.provider.rewinds else set())
        self.capabilities: frozenset[str] = frozenset(words)
        self._vocabulary = opened.vocabulary
        self._model: Any = model
        self._rewinds = opened.provider.rewinds
        self._original = opened.original
        self._roomy = roomy
        self._generator: Any = None
        self._capacity = 0
        self._chunk = _CHUNK_ON_GPUS if opened.provider.float16 else CHUNK
        self._read: list[tuple[int, ...]] = []
        """The chunks of the prompt that are in the KV cache of the generator."""
        self._idle = IdleWork()

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
        generator = self._make(len(ids) + 1)
        _append(generator, ids)
        rows: np.ndarray = np.asarray(generator.get_output("logits"))[0]
        if rows.shape[0] != len(ids):
            raise BackendError(f"the graph gives {rows.shape[0]} rows of logits for {len(ids)} tokens")
        return rows.astype(np.float32)

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Yield generated token ids. Each is computed when it is requested.

        Raises:
            BackendError: ONNX Runtime failed.
            PromptTooLongError: prompt and answer do not fit the context.
            UsageError: the request contains unknown token ids, or its JSON schema is invalid or not supported.
        """
        self._check(request)
        self._idle.stop()
        stops = frozenset(request.stop_ids)
        tokens = (
            self._sample_here(request)
            if self._rewinds and request.json_schema is None
            else self._sample_in_runtime(request)
        )
        for _, token in zip(range(request.max_new_tokens), tokens, strict=False):
            if token in stops:
                return
            yield token

    def _check(self, request: GenerationRequest) -> None:
        """Check what onnxruntime-genai would accept silently or reject with a confusing message."""
        needed = len(request.prompt_ids) + request.max_new_tokens
        if needed > self.context_length:
            raise PromptTooLongError(
                f"{len(request.prompt_ids)} tokens of prompt and {request.max_new_tokens} of answer are more than "
                f"the context of {self.context_length}"
            )
        if request.json_schema is not None and self._crosses_longrope_limit(len(request.prompt_ids), needed):
            raise UsageError(
                f"with a JSON schema, prompt and answer have to stay within {self._original} tokens, where the model "
                f"changes over to its long context",
                hint="ask for fewer tokens",
            )
        if not all(0 <= token < self._vocabulary for token in request.prompt_ids):
            raise UsageError(f"a token of the prompt is not among the {self._vocabulary} of the vocabulary")

    def _sample_here(self, request: GenerationRequest) -> Iterator[int]:
        """Yield ids that this engine samples from the generator's logits, so that any request can reuse the KV cache.

        In onnxruntime-genai, sampling settings and the random state belong to a generator: with its own sampling,
        only requests with the same settings could reuse the cache, and the random numbers would depend on the request
        before.
        """
        ids, sampler = list(request.prompt_ids), Sampler(request.sampling, request.prompt_ids)
        limit = len(ids) + request.max_new_tokens
        try:
            if self._generator is None or limit > self._capacity:
                self._forget()
                self._capacity = self._room(limit)
                self._generator = self._make(self._capacity)
            self._prefill(ids)
            while True:
                token = sampler.pick(self._generator.get_logits().reshape(-1)[-self._vocabulary :])
                yield token
                ids.append(token)
                if len(ids) == limit:
                    return
                if self._crosses_longrope_limit(len(ids) - 1, len(ids)):
                    self._prefill(ids)
                else:
                    _append(self._generator, [token])
        except RuntimeError as error:
            self._forget()
            raise BackendError(_line(error)) from error
        finally:
            if self._roomy and self._generator is not None:
                self._idle.start(self._read_ahead(ids))

    def _prefill(self, ids: Sequence[int]) -> None:
        """Fill the KV cache with exactly ``ids``, reusing the chunks of an earlier prompt that are the same.

        From the first different chunk on, chunks are read as without a cache, an earlier answer included: kernels
        round differently for other numbers of rows, and the output must not depend on earlier requests.
        """
        plan = chunks(ids, self._chunk, self._original)
        # The last one is always read, for its logits.
        for _ in self._fill(plan, min(self._kept(plan), len(plan) - 1)):
            pass

    def _read_ahead(self, ids: Sequence[int]) -> Iterator[None]:
        """Read the whole chunks of a prompt and its answer, with which the next prompt of a conversation begins."""
        plan = chunks(ids, self._chunk, self._original)[:-1]
        kept = self._kept(plan)
        # Not after a change of longrope's factors, which would read everything anew.
        if kept < len(plan) and (kept or len(plan[0]) == self._chunk):
            try:
                yield from self._fill(plan, kept)
            except RuntimeError:  # the next request meets it again, and says so
                self._forget()

    def _kept(self, plan: Sequence[tuple[int, ...]]) -> int:
        """Return the number of chunks with which ``plan`` begins that are in the KV cache."""
        same = 0
        while same < min(len(plan), len(self._read)) and plan[same] == self._read[same]:
            same += 1
        return same

    def _fill(self, plan: Sequence[tuple[int, ...]], kept: int) -> Iterator[None]:
        """Read the chunks of ``plan`` after the first ``kept``, one a step."""
        self._read = list(plan[:kept])
        self._generator.rewind_to(sum(map(len, self._read)))
        for chunk in plan[kept:]:
            _append(self._generator, chunk)
            self._read.append(chunk)
            yield

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
                _append(generator, ids)
                started = len(ids)
                while len(ids) < limit and not generator.is_done():
                    if started < len(ids) and self._crosses_longrope_limit(started, len(ids)):
                        break
                    generator.generate_next_token()
                    token = int(generator.get_next_tokens()[0])
                    yield token
                    ids.append(token)
            except RuntimeError as error:
                raise BackendError(_line(error)) from error
            if len(ids) >= limit or request.json_schema is not None:
                return
            # is_done() is also true after a stop id of the configuration that is not one of the request's.

    def _room(self, limit: int) -> int:
        return min(self.context_length, -(-limit // _ROOM) * _ROOM) if self._roomy else limit

    def _make(self, length: int, request: GenerationRequest | None = None, *, done: int = 0) -> Any:
        """Return a new generator with capacity for ``length`` tokens and a request's settings, by default greedy."""
        settings = og.GeneratorParams(self._model)
        settings.set_search_options(max_length=min(length, self.context_length), **_search(request, done))
        if request is not None and request.json_schema is not None:
            _guide(settings, request.json_schema)
        try:
            return og.Generator(self._model, settings)
        except RuntimeError as error:
            if request is not None and request.json_schema is not None:
                raise UsageError(f"the JSON schema cannot be followed: {_line(error)}") from error
            raise BackendError(f"no room for {length} tokens: {_line(error)}") from error

    def _forget(self) -> None:
        self._generator, self._read, self._capacity = None, [], 0


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


def _append(generator: Any, ids: Sequence[int]) -> None:
    generator.append_tokens(np.array(ids, np.int32))


def _search(request: GenerationRequest | None, done: int) -> dict[str, Any]:
    """Return the search options of a request, of whose answer ``done`` tokens exist already; they shift the seed."""
    if request is None:
        return {"do_sample": False}
    sampling = request.sampling
    found: dict[str, Any] = {"do_sample": sampling.temperature > 0, "repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature > 0:
        found |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p}
        if sampling.seed is not None:
            found["random_seed"] = (sampling.seed + done) % (1 << 31)
    return found


def _guide(settings: Any, schema: str) -> None:
    try:
        json.loads(schema)
        settings.set_guidance("json_schema", schema)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the JSON schema is not one: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return an error message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
