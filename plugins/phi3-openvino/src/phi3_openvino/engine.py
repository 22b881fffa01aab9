"""Load weights with OpenVINO GenAI, and generate: ids in, ids out."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from phi3_core.errors import BackendError, ModelError, PromptTooLongError, UsageError
from phi3_core.machine import driver_fingerprint
from phi3_core.paths import engine_cache, read_json
from phi3_core.values import Artifact, Device, GenerationRequest

from . import weights

# OpenVINO GenAI's own defaults for the NPU, whose graphs have fixed shapes.
_NPU_PROMPT, _NPU_ANSWER = 1024, 128
_END = object()
logger = logging.getLogger("phi3_core.openvino")
# Release and build; what follows them is a commit.
_VERSION = "-".join(openvino.__version__.split("-")[:2])


def load(artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str) -> OpenVinoEngine:
    """Load an IR folder or a GGUF file on ``device``; ``options`` are OpenVINO's own properties.

    Raises:
        ModelError: there are no weights that OpenVINO GenAI loads.
        UsageError: OpenVINO does not take one of the options.
    """
    file = weights.find(artifact.path)
    if file is None:
        raise ModelError(f"{artifact.path} holds neither {weights.IR} nor one GGUF file")
    pipeline = None
    with _loadable(file, artifact) as source:
        # For logits the graph is run without a pipeline, which takes as much memory again, and its time to load. But it
        # is what knows the options.
        if purpose != "evaluation" or options:
            properties = _properties(artifact, device, options, purpose)
            try:
                pipeline = openvino_genai.LLMPipeline(source, device.id, **properties)
            except RuntimeError as error:
                raise _loading_error(error, options) from error
    return OpenVinoEngine(
        pipeline,
        _context_length(artifact, device, options),
        longest_prompt=_longest_prompt(device, options),
        graph=source / weights.IR,
        device=device.id,
    )


class OpenVinoEngine:
    """A pipeline of OpenVINO GenAI, or none where only logits are wanted."""

    max_concurrency = 1
    capabilities: frozenset[str] = frozenset({"logits"})

    def __init__(
        self, pipeline: Any, context_length: int, *, longest_prompt: int | None, graph: Path, device: str
    ) -> None:
        self._pipeline = pipeline
        self.context_length = context_length
        self._longest_prompt = longest_prompt
        self._graph = graph
        self._device = device

    def close(self) -> None:
        self._pipeline = None

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """The graph run once by OpenVINO itself, since the pipeline keeps its logits to itself."""
        if not self._graph.is_file():
            raise BackendError("logits need a store that can be written, to keep the graph of a GGUF file in")
        compiled = openvino.Core().compile_model(self._graph, self._device)
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
        return rows

    def generate(self, request: GenerationRequest) -> Iterator[int]:
        """Run the pipeline in a thread of its own, which releases the interpreter's lock, and yield what it streams."""
        if self._pipeline is None:
            raise BackendError("it was loaded for an evaluation: there is no pipeline to generate with")
        if self._longest_prompt is not None and len(request.prompt_ids) > self._longest_prompt:
            raise PromptTooLongError(
                f"the prompt has {len(request.prompt_ids)} tokens, and the NPU was loaded for {self._longest_prompt}",
                hint=f"--option MAX_PROMPT_LEN={len(request.prompt_ids)}",
            )
        streamer = _Streamer(frozenset(request.stop_ids))
        thread = threading.Thread(target=self._run, args=(request, streamer), name="phi3-openvino", daemon=True)
        thread.start()
        try:
            while (item := streamer.items.get()) is not _END:
                if isinstance(item, BaseException):
                    raise BackendError(_clean(item)) from item
                yield item
        finally:
            streamer.wanted = False
            thread.join()

    def _run(self, request: GenerationRequest, streamer: _Streamer) -> None:
        try:
            ids = np.array([request.prompt_ids], dtype=np.int64)
            inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
            self._pipeline.generate(inputs, _config(request), streamer)
        except Exception as error:  # it is raised again in the thread that waits
            streamer.items.put(error)
        else:
            streamer.items.put(_END)


class _Streamer(openvino_genai.StreamerBase):
    """Hands on ids as they come. OpenVINO GenAI ends the process over an exception in here: there must be none."""

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


def _config(request: GenerationRequest) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = request.max_new_tokens
    if request.stop_ids:
        config.eos_token_id = request.stop_ids[0]
        config.stop_token_ids = set(request.stop_ids)
    else:
        config.ignore_eos = True
    sampling = request.sampling
    config.repetition_penalty = sampling.repetition_penalty
    config.do_sample = sampling.temperature > 0
    if config.do_sample:
        config.temperature = sampling.temperature
        config.top_p = sampling.top_p
        if sampling.top_k:
            config.top_k = sampling.top_k
        # Without a seed of its own OpenVINO GenAI draws the same numbers every time.
        config.rng_seed = sampling.seed if sampling.seed is not None else int.from_bytes(os.urandom(4), "little")
    return config


def _properties(artifact: Artifact, device: Device, options: Mapping[str, str], purpose: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if device.kind == "npu":
        # These two are read as numbers, not as text.
        properties |= {key: _number(options, key) for key in ("MAX_PROMPT_LEN", "MIN_RESPONSE_LEN") if key in options}
    elif purpose != "conversation":
        # Starts in a third of the time, and can be cached when compiled; a conversation wants paged attention instead,
        # whose prefix cache makes the next turn's prompt nearly free.
        properties["ATTENTION_BACKEND"] = "SDPA"
    paged = {**properties, **options}.get("ATTENTION_BACKEND") != "SDPA"
    if "CACHE_DIR" not in options and not (device.kind == "cpu" and paged):
        # The CPU's paged attention model is compiled anew whatever the cache holds: writing there only costs time.
        cache = _compiled_cache(artifact, device)
        if cache is not None:
            properties["CACHE_DIR"] = str(cache)
    return {**{key: value for key, value in options.items() if key not in properties}, **properties}


def _compiled_cache(artifact: Artifact, device: Device) -> Path | None:
    """Compiled models fail or mislead after an update of OpenVINO or of the driver: both are in the folder's name."""
    driver = device.driver or ("" if device.kind == "cpu" else "\n".join(driver_fingerprint()))
    state = hashlib.sha256(f"{_VERSION}\n{device.name}\n{driver}".encode()).hexdigest()[:12]
    folder = engine_cache("openvino", str(artifact.manifest.get("digest", "")), device.id, state)
    if folder is None:
        logger.warning("the store cannot be written, so the compiled model is not kept; the next start takes as long")
    else:
        for other in folder.parent.glob(f"openvino-{device.id}-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _loadable(file: Path, artifact: Artifact) -> Iterator[Path]:
    """What a pipeline is made of: an IR's folder, for a GGUF file too.

    A GGUF file is converted the first time, since its IR is read in a tenth of the time.
    """
    if file.suffix.lower() != ".gguf":
        yield file.parent
        return
    folder = engine_cache("openvino", str(artifact.manifest.get("digest", "")), "ir", _VERSION)
    if folder is not None and (folder / weights.IR).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as staging:
        gguf = _writable(file, Path(staging))
        if folder is None:
            yield gguf
            return
        try:
            openvino_genai.LLMPipeline(gguf, "CPU", ATTENTION_BACKEND="SDPA", enable_save_ov_model=True)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO GenAI cannot read {file}: {_clean(error)}") from error
        # The .xml last: it is what says that the folder is whole.
        for name in (Path(weights.IR).with_suffix(".bin").name, weights.IR):
            gguf.with_name(name).replace(folder / name)
    yield folder


def _writable(file: Path, folder: Path) -> Path:
    """The file under a name in ``folder``: OpenVINO GenAI opens a GGUF file for writing, and saves beside it."""
    here = folder / file.name
    try:
        if os.access(file, os.W_OK):
            here.symlink_to(file.resolve())
            return here
    except OSError:  # Windows asks for a privilege
        pass
    shutil.copyfile(file, here)
    return here


def _number(options: Mapping[str, str], key: str) -> int:
    try:
        return int(options[key])
    except ValueError:
        raise UsageError(f"the option {key} is a number, not {options[key]!r}") from None


def _longest_prompt(device: Device, options: Mapping[str, str]) -> int | None:
    if device.kind != "npu":
        return None
    return _number(options, "MAX_PROMPT_LEN") if "MAX_PROMPT_LEN" in options else _NPU_PROMPT


def _context_length(artifact: Artifact, device: Device, options: Mapping[str, str]) -> int:
    if device.kind == "npu":
        answer = _number(options, "MIN_RESPONSE_LEN") if "MIN_RESPONSE_LEN" in options else _NPU_ANSWER
        return (_longest_prompt(device, options) or _NPU_PROMPT) + answer
    known = artifact.manifest.get("context_length")
    config = read_json(artifact.path / "config.json")
    config = config if isinstance(config, dict) else {}
    if known is None:
        known = config.get("max_position_embeddings")
    if not isinstance(known, int) or known < 1:
        raise ModelError(f"{artifact.path} does not say how long its context is")
    original = config.get("original_max_position_embeddings")
    if (
        artifact.manifest.get("recipe")
        and config.get("rope_scaling")
        and isinstance(original, int)
        and original < known
    ):
        # Longrope turns positions differently in longer sequences, the earlier ones included: a cache that was filled
        # before the limit is wrong behind it, and a prompt that is read in chunks mixes both.
        logger.warning("the context is limited to %d tokens: longrope's longer ones come out wrong so far", original)
        return original
    return known


def _loading_error(error: RuntimeError, options: Mapping[str, str]) -> Exception:
    text = _clean(error)
    for key, value in options.items():
        if key in text or (value and value in text):
            hint = f"leave --option {key}={value} out"
            return UsageError(f"OpenVINO does not take the option {key}={value}: {text}", hint=hint)
    return BackendError(f"loading failed: {text}")


def _clean(error: BaseException) -> str:
    """OpenVINO's message without the places in its sources that it passed through."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(said) or str(error)
