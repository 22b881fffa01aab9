"""Load an IR into a pipeline of OpenVINO GenAI or a decoder: properties, compiled models and derived graphs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import openvino
import openvino_genai
from attrs import frozen
from phi3_core.backend import (
    Decoder,
    artifact_folder,
    chunks,
    compiled_folder,
    read_config,
    thread_limit,
    write_problem,
)
from phi3_core.errors import BackendError, ModelError, UsageError
from phi3_core.values import Artifact, Device

from . import kv_cache, longrope, npu, tuning, weights
from .forward import PagedForward, StatefulForward
from .opening import Opening
from .paged_batch import PROPOSALS, STEP, PagedBatch
from .pipeline_batch import PipelineBatch

logger = logging.getLogger("phi3_core.openvino")
_NUM_THREADS = "INFERENCE_NUM_THREADS"
_OF_PIPELINES = {"ATTENTION_BACKEND", "GENERATE_HINT", "PREFILL_HINT", npu.PROMPT, npu.ANSWER}
_NOT_FOR_DECODING = (_OF_PIPELINES - {"ATTENTION_BACKEND"}) | {"KV_CACHE_PRECISION"}
_GAPS = 256
"""More places than an answer's wrong proposals leave behind."""
# Release and build, without the commit.
VERSION = "-".join(openvino.__version__.split("-")[:2])
_LONG = 1024
"""From this number of tokens on, a single prompt is read with paged attention on CPUs. See docs/decisions/0028."""

Form = Literal["short", "paged", "long"] | npu.Shape
"""The form of a graph: the original one, the same with paged attention whatever the purpose, the long one
(``longrope.py``), or a shape on the NPU."""


@frozen(kw_only=True, slots=False)
class Loader:
    """Creates the pipelines of one artifact on one device."""

    artifact: Artifact
    device: Device
    opening: Opening
    purpose: str
    source: Path
    """The folder of an IR, or a GGUF file if the store is not writable."""
    cache: kv_cache.Plan | None = None
    """The KV cache of a pipeline that batches; None for pipelines that process one request at a time."""

    @property
    def decodes_here(self) -> bool:
        """Whether phi3-core decodes with the graph (``forward.py``): for single answers on CPUs."""
        on_cpu = self.device.kind == "cpu" and self.opening.shapes is None
        plain = self.source.is_dir() and _NOT_FOR_DECODING.isdisjoint(self.opening.properties)
        return self.purpose == "answer" and on_cpu and plain

    @property
    def runs_graph_here(self) -> bool:
        """Whether answers are made with the graph (``forward.py``, ``paged_batch.py``), without a pipeline."""
        return self.decodes_here or (self.cache is not None and self.device.kind == "cpu")

    @functools.cached_property
    def _longest_with_gaps(self) -> float:
        """The number of tokens of a text from whose KV cache some can be removed with SDPA: their places stay, masked.

        Graphs of others count such places in a sliding window.
        """
        if not self.artifact.path.is_dir() or weights.made_here(self.source / weights.IR):
            return math.inf
        window = read_config(self.artifact.path).get("sliding_window")
        return window - _GAPS if isinstance(window, int) else math.inf

    def may_leave_gaps(self, form: Form, tokens: int) -> bool:
        """Return whether tokens can be removed from the KV cache of a text of ``tokens`` tokens."""
        return form != "short" or tokens <= self._longest_with_gaps

    def pipeline(self, form: Form) -> Any:
        """Return a new pipeline, or a decoder if the engine decodes by itself.

        Args:
            form: the form of the graph.

        Raises:
            BackendError: OpenVINO failed, or the store is not writable and the long form is needed.
            UsageError: OpenVINO does not accept an option.
        """
        source = self._long_form() if form == "long" else self.source
        properties = self._properties(form)
        cache = self._cache_folder(properties, form)
        if cache is None:
            return self._load(source, properties)
        properties["CACHE_DIR"] = str(cache)
        kept = _modified(cache)
        try:
            pipeline = self._load(source, properties)
        except BackendError as error:
            if problem := write_problem(cache, _compiled_bytes(source)):
                logger.warning("%s: the compiled model is not kept, the next start is as slow", problem)
                _empty(cache)
                return self._load(source, {key: properties[key] for key in properties if key != "CACHE_DIR"})
            if not kept:
                raise
            # A driver may refuse what an earlier one compiled, whatever the versions say.
            logger.warning("the compiled model that was kept does not load, and is compiled again: %s", error)
            _empty(cache)
            return self._load(source, properties)
        found = _modified(cache)
        if any(found.get(name) != time for name, time in kept.items()):
            logger.warning("the compiled model that was kept was damaged, and was compiled again")
        return pipeline

    def prefers_paged(self, tokens: int) -> bool:
        """Return whether paged attention is better than SDPA for an engine whose only prompt has ``tokens`` tokens."""
        chosen = "ATTENTION_BACKEND" in self.opening.properties
        return self.purpose == "answer" and self.device.kind == "cpu" and not chosen and tokens >= _LONG

    def compiled(self, tokens: int) -> Any:
        """Return the graph, compiled without a pipeline, for ``tokens`` tokens at once.

        Raises:
            BackendError: OpenVINO failed.
            UsageError: OpenVINO does not accept an option.
        """
        given = {key: value for key, value in self.opening.properties.items() if key not in _OF_PIPELINES}
        defaults = npu.logits_properties(self.device, tokens) if self.opening.shapes else self._cpu_properties()
        try:
            return openvino.Core().compile_model(self.source / weights.IR, self._target, defaults | given)
        except RuntimeError as error:
            raise self._loading_error(error, given) from error

    @property
    def _target(self) -> str:
        """OpenVINO's name of the device."""
        return npu.DEVICE if self.opening.shapes else self.device.id

    def _load(self, source: Path, properties: Mapping[str, Any]) -> Any:
        try:
            if self.decodes_here:
                return self._decoder(source / weights.IR, properties)
            if self.cache is None:
                return openvino_genai.LLMPipeline(source, self._target, **properties)
            given = {key: value for key, value in properties.items() if key not in _OF_PIPELINES}
            if self.runs_graph_here:
                return PagedBatch(source / weights.IR, given, blocks=self.cache.blocks)
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.num_kv_blocks = self.cache.blocks
            scheduler.enable_prefix_caching = True
            scheduler.max_num_batched_tokens = STEP
            pipeline = openvino_genai.ContinuousBatchingPipeline(source, scheduler, self._target, given)
            return PipelineBatch(pipeline, block=self.cache.block, blocks=self.cache.blocks)
        except RuntimeError as error:
            raise self._loading_error(error, self.opening.properties) from error

    def _loading_error(self, error: RuntimeError, options: Mapping[str, Any]) -> Exception:
        """Return the error for a failure of OpenVINO, which does not tell damaged weights from others."""
        try:
            weights.recognize(self.artifact.path)
        except ModelError as damage:
            return damage
        text = clean(error)
        for key, value in options.items():
            if key in text or (value and str(value) in text):
                hint = f"leave --option {key}={value} out"
                return UsageError(f"OpenVINO does not take the option {key}={value}: {text}", hint=hint)
        return BackendError(f"loading failed: {text}")

    def _decoder(self, graph: Path, properties: Mapping[str, Any]) -> Decoder:
        given = {key: value for key, value in properties.items() if key not in _OF_PIPELINES}
        if properties.get("ATTENTION_BACKEND") == "SDPA":
            stateful = StatefulForward(graph, given)
            return Decoder(stateful, plan=lambda ids: [tuple(ids)], keeps=False, proposals=PROPOSALS)
        paged = PagedForward(graph, given)
        return Decoder(paged, plan=lambda ids: chunks(ids, STEP), keeps=False, proposals=PROPOSALS)

    def _cpu_properties(self) -> dict[str, Any]:
        """Return the default properties for CPUs: the precision of activations, and the number of threads.

        On CPUs with bfloat16 instructions OpenVINO's default is bfloat16. Answers would then depend on the processor,
        and fp16 weights would agree with the original weights at 98 % of the positions instead of all.
        """
        if self.device.kind != "cpu":
            return {}
        exact: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        # OpenVINO does not know the quota of a container, and more threads than that wait for each other.
        if (threads := thread_limit()) is not None:
            exact[_NUM_THREADS] = threads
        if self.purpose == "evaluation":
            # It measures the weights and must not depend on the processor: it disables the quantization of activations
            # to 8 bits, which OpenVINO uses on some processors. See docs/decisions/0017.
            return exact | {tuning.GROUP: "0"}
        if tuning.GROUP not in self.opening.properties and (group := self._tuned(exact)) is not None:
            exact[tuning.GROUP] = group
        return exact

    def _tuned(self, properties: Mapping[str, Any]) -> str | None:
        try:
            return tuning.tuned(self.artifact, self.device, self.source / weights.IR, VERSION, properties)
        except RuntimeError as error:  # it is not worth the answer
            logger.warning("OpenVINO's defaults are used, because measuring failed: %s", clean(error))
            return None

    def _long_form(self) -> Path:
        folder = artifact_folder(self.artifact, "long", VERSION)
        if folder is None:
            raise BackendError(
                f"beyond {self.opening.longrope_limit} tokens this model needs a store that can be "
                f"written, for another form of its graph"
            )
        longrope.make_long(self.source / weights.IR, folder)
        return folder

    def _properties(self, form: Form) -> dict[str, Any]:
        if isinstance(form, npu.Shape) and self.opening.shapes is not None:
            return npu.pipeline_properties(self.device, self.opening.shapes, form) | dict(self.opening.properties)
        properties = self._cpu_properties()
        if self.purpose != "conversation" and form == "short":
            # SDPA starts in a third of the time, and its compiled model can be cached. Paged attention is better for
            # conversations, because its prefix cache covers most of the next prompt, and for long prompts, because its
            # time and memory do not grow as much with the length.
            properties["ATTENTION_BACKEND"] = "SDPA"
        return properties | dict(self.opening.properties)

    def _cache_folder(self, properties: Mapping[str, Any], form: Form) -> Path | None:
        """Return the folder for the compiled model; None if it is not kept, or the user named a folder."""
        paged = self.opening.shapes is None and properties.get("ATTENTION_BACKEND") != "SDPA"
        # On the CPU, paged attention models are compiled again regardless of the cache, so writing it wastes time.
        if "CACHE_DIR" in properties or (self.device.kind == "cpu" and paged):
            return None
        # OpenVINO's own key has few of the properties: a model compiled with other ones would be taken.
        given = (*self.opening.properties, _NUM_THREADS, tuning.GROUP)
        differing = {
            name: properties[name]
            for name in (properties if isinstance(form, npu.Shape) else given)
            if name in properties
        }
        text = json.dumps({key: str(value) for key, value in differing.items()}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8] if differing else ""
        variant = ".".join(filter(None, ["long" if form == "long" else "", digest]))
        folder = compiled_folder(self.artifact, self.device, VERSION, variant=variant, discard_older=True)
        if folder is None:
            logger.warning("the store cannot be written: the compiled model is not kept, the next start is as slow")
        return folder


def _modified(folder: Path) -> dict[str, int]:
    """Return the time at which each file in a folder was written, in nanoseconds."""
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def _compiled_bytes(source: Path) -> int:
    """Return about how large a compiled model is: as large as the weights."""
    file = source if source.is_file() else (source / weights.IR).with_suffix(".bin")
    return file.stat().st_size if file.is_file() else 0  # without it, loading has failed for that reason


def _empty(folder: Path) -> None:
    """Remove the files in a folder. OpenVINO makes them read-only, which Windows does not remove."""
    for file in folder.iterdir():
        with contextlib.suppress(OSError):
            file.chmod(0o600)
            file.unlink()


def clean(error: BaseException) -> str:
    """Return OpenVINO's error message without its source locations."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(said) or str(error)
