"""The engine: loads weights with OpenVINO GenAI and generates token ids from token ids."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from attrs import evolve
from phi3_core.backend import answer_capabilities
from phi3_core.errors import BackendError, ModelError
from phi3_core.values import Artifact, Device, GenerationRequest

from . import converting, kv_cache, loading, npu, opening, weights
from .batching import Batch
from .configuration import configuration

_END = object()
_FOR = {"short": "short", "paged": "longer", "long": "long"}
logger = logging.getLogger("phi3_core.openvino")


def load(
    artifact: Artifact,
    device: Device,
    options: Mapping[str, str],
    purpose: str,
    prompt_tokens: int | None = None,
) -> OpenVinoEngine:
    """Load an artifact.

    Args:
        artifact: a folder with an IR, or a GGUF file.
        device: the device to load it on.
        options: properties of OpenVINO or of the pipeline.
        purpose: ``answer``, ``conversation`` or ``evaluation``.
        prompt_tokens: about how long the prompt will be, if that is known.

    Raises:
        BackendError: OpenVINO cannot load the weights.
        ModelError: there are no weights that OpenVINO GenAI supports.
        UsageError: OpenVINO does not accept an option.
    """
    opened = opening.check(artifact, device, options, purpose)
    with converting.loadable(opened.file, artifact) as source:
        loader = loading.Loader(
            artifact=artifact,
            device=device,
            opening=opened,
            purpose=purpose,
            source=source,
            cache=_cache(opened, device, purpose, source),
        )
        engine = OpenVinoEngine(loader)
        # Logits need no pipeline, which would double the memory and the loading time; only the pipeline checks options.
        # On the NPU the first prompt decides about the shape, if it is to be the only one: see docs/decisions/0020.
        if opened.shapes is not None:
            if purpose == "conversation":
                engine.load(opened.shapes.smallest())
        elif purpose != "evaluation" or options:
            engine.load("paged" if loader.prefers_paged(prompt_tokens or 0) else "short")
        return engine


def _cache(opened: opening.Opening, device: Device, purpose: str, source: Path) -> kv_cache.Plan | None:
    """Return the KV cache of a pipeline that batches; None if requests are processed one at a time.

    Batches need paged attention, which single answers and NPUs do without.
    """
    attention = opened.properties.get("ATTENTION_BACKEND", "PA")
    if purpose != "conversation" or opened.shapes is not None or attention != "PA" or source.is_file():
        return None
    return kv_cache.plan(source / weights.IR, device, opened.properties, opened.context)


class OpenVinoEngine:
    """A loaded model: a pipeline of OpenVINO GenAI, or only the graph for evaluations."""

    def __init__(self, loader: loading.Loader) -> None:
        cache = loader.cache
        self.context_length = cache.context if cache else loader.opening.context
        self.max_concurrency = cache.concurrency if cache else 1
        self._batch = Batch(self) if cache else None
        self._decodes = loader.decodes_here
        of_core = answer_capabilities() | {"lookup"} if loader.runs_graph_here else frozenset()
        self.capabilities = of_core | {"logits"}
        self._loader = loader
        self._pipeline: Any = None
        self._form: loading.Form | None = None
        """The form of the graph that the pipeline runs, or ran last; None before the first."""

    def load(self, form: loading.Form) -> None:
        """Load the pipeline for a form of the graph, after freeing the other one to save memory.

        Raises:
            BackendError: OpenVINO failed.
            UsageError: OpenVINO does not accept an option.
        """
        self._pipeline = None
        self._pipeline = self._loader.pipeline(form)
        self._form = form

    def close(self) -> None:
        """Free the model. Answers that are not finished end with an error."""
        if self._batch is not None:
            self._batch.close()
        self._pipeline = None

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits at every position, ``[ids, vocabulary]``, in float32.

        OpenVINO runs the graph directly, because a pipeline does not return logits.

        Raises:
            BackendError: the model is a GGUF file and the store is not writable.
            ModelError: the weights do not know one of the ids.
        """
        self._check(ids)
        graph = self._loader.source / weights.IR
        if not graph.is_file():
            raise BackendError("logits need a store that can be written, to keep the graph of a GGUF file in")
        compiled = self._loader.compiled(len(ids))
        row = np.array([ids], dtype=np.int64)
        inputs = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "position_ids": np.arange(len(ids), dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        known = {name for port in compiled.inputs for name in port.get_names()}
        found = compiled.create_infer_request().infer({name: inputs[name] for name in inputs if name in known})
        rows: np.ndarray = np.asarray(found["logits"], dtype=np.float32)[0]
        return rows[-len(ids) :]  # the NPU's graph has rows for padding on the left

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Yield generated token ids. Closing the iterator stops the generation.

        When a sequence exceeds LongRoPE's original context, the long form of the graph processes it from the start.
        On the NPU, a graph of another shape is loaded for a request that does not fit the present one.

        Raises:
            BackendError: OpenVINO failed, or the engine was loaded for an evaluation.
            ModelError: the weights do not know an id of the prompt.
            PromptTooLongError: the prompt is longer than the user's number for the NPU's graph.
            UsageError: the request's JSON schema cannot be followed.
        """
        if self._loader.purpose == "evaluation":
            raise BackendError("it was loaded for an evaluation: there is no pipeline to generate with")
        self._check(request.prompt_ids)
        longrope_limit = self._loader.opening.longrope_limit
        ids = list(request.prompt_ids)
        end = len(ids) + request.max_new_tokens
        while len(ids) < end:
            # The short form processes at most ``longrope_limit`` tokens and so predicts one more.
            stop = end if longrope_limit is None or len(ids) > longrope_limit else min(end, longrope_limit + 1)
            answered = request.answered + len(ids) - len(request.prompt_ids)
            part = evolve(request, prompt_ids=tuple(ids), max_new_tokens=stop - len(ids), answered=answered)
            if len(ids) > len(request.prompt_ids) and (seed := request.sampling.seed) is not None:
                # A later part must not repeat the random numbers of the first.
                part = evolve(part, sampling=evolve(request.sampling, seed=seed + len(ids)))
            with contextlib.closing(self._stream(part)) as stream:
                for token in stream:
                    ids.append(token)
                    yield token
            if len(ids) < stop:
                return

    def _check(self, ids: Sequence[int]) -> None:
        """Check ids, of which OpenVINO takes any. Core does so if there is a ``config.json``, which an IR may lack."""
        known = self._loader.opening.vocabulary
        if known is not None and max(ids, default=0) >= known:
            raise ModelError(
                f"the tokenizer has a token with the id {max(ids)}, and the model's vocabulary has {known} tokens",
                hint="the embedding was not resized for added tokens: use a model that was saved after resizing it",
            )

    def _stream(self, request: GenerationRequest) -> Generator[int, None, None]:
        if self._decodes:
            return self._decode(request)
        if self._batch is not None:
            return self._batch.stream(request)
        return self._stream_alone(request)

    def _decode(self, request: GenerationRequest) -> Generator[int, None, None]:
        length = len(request.prompt_ids)
        decoder = self.take(length, request.max_new_tokens)
        lookup = request.lookup
        if self._form is not None and not self._loader.may_leave_gaps(self._form, length + request.max_new_tokens):
            lookup = "off"
            if request.lookup == "on":
                logger.warning("no prompt lookup: the answer may go beyond this graph's sliding window")
        try:
            yield from decoder.generate(evolve(request, lookup=lookup))
        except RuntimeError as error:
            raise BackendError(loading.clean(error)) from error

    def _stream_alone(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Run the pipeline, which releases the GIL, in a separate thread and yield the ids that it streams."""
        self.take(len(request.prompt_ids), request.max_new_tokens)
        streamer = _Streamer(frozenset(request.stop_ids))
        arguments = (request.prompt_ids, configuration(request), streamer)
        thread = threading.Thread(target=self._run, args=arguments, name="phi3-openvino", daemon=True)
        thread.start()
        try:
            while (item := streamer.items.get()) is not _END:
                if isinstance(item, BaseException):
                    raise BackendError(loading.clean(item)) from item
                yield item
        finally:
            streamer.wanted = False
            thread.join()

    def holds(self, length: int, new: int) -> bool:
        """Return whether the loaded pipeline has the form of the graph for ``length`` tokens and ``new`` more."""
        return self._pipeline is not None and self._fitting_form(length, new) == self._form

    def drop(self) -> None:
        """Forget the pipeline. The next request loads it again."""
        self._pipeline = None

    def take(self, length: int, new: int) -> Any:
        """Return the pipeline for ``length`` tokens and up to ``new`` more, loading it unless it is loaded."""
        if self.holds(length, new):
            return self._pipeline
        form = self._fitting_form(length, new)
        if form == self._form:
            logger.warning("loading the model again, after a failure")
        elif isinstance(form, npu.Shape):
            if self._form is not None:
                words = "%d tokens of text, and up to %d more: loading the model for prompts of %d and answers of %d"
                logger.warning(words, length, new, form.prompt, form.answer)
        else:
            logger.warning("%d tokens of text: loading the model's form for %s ones", length, _FOR[form])
        self.load(form)
        return self._pipeline

    def _fitting_form(self, length: int, new: int) -> loading.Form:
        opened = self._loader.opening
        if opened.shapes is None:
            if opened.longrope_limit is not None and length > opened.longrope_limit:
                return "long"
            # Loading again takes about as long as it saves for a prompt of this length.
            return "paged" if self._form == "paged" or self._loader.prefers_paged(length // 2) else "short"
        if isinstance(self._form, npu.Shape) and self._form.holds(length, new):
            return self._form
        return opened.shapes.fitting(length, new)

    def _run(self, prompt_ids: Sequence[int], config: Any, streamer: _Streamer) -> None:
        try:
            ids = np.array([prompt_ids], dtype=np.int64)
            inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
            self._pipeline.generate(inputs, config, streamer)
        except Exception as error:  # raised again in the waiting thread
            streamer.items.put(error)
        else:
            streamer.items.put(_END)


class _Streamer(openvino_genai.StreamerBase):
    """Puts generated ids into a queue. It must not raise: OpenVINO GenAI would end the process."""

    def __init__(self, stop_ids: frozenset[int]) -> None:
        super().__init__()
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.wanted = True
        self._stop_ids = stop_ids

    def write(self, token: Any) -> openvino_genai.StreamingStatus:
        for item in token if isinstance(token, list) else (token,):
            if item in self._stop_ids:
                return openvino_genai.StreamingStatus.STOP
            self.items.put(item)
        return openvino_genai.StreamingStatus.RUNNING if self.wanted else openvino_genai.StreamingStatus.CANCEL

    def end(self) -> None:
        pass
