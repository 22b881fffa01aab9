"""From weights to a pipeline of OpenVINO GenAI: properties, compiled models, forms that have to be made first."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openvino
import openvino_genai
from attrs import frozen
from phi3_core.backend import artifact_folder, compiled_folder
from phi3_core.errors import BackendError, ModelError, UsageError
from phi3_core.values import Artifact, Device

from . import longrope, weights
from .opening import Opening

logger = logging.getLogger("phi3_core.openvino")
# Release and build; what follows them is a commit.
_OF_PIPELINES = {"ATTENTION_BACKEND", "MAX_PROMPT_LEN", "MIN_RESPONSE_LEN"}
_VERSION = "-".join(openvino.__version__.split("-")[:2])


@frozen(kw_only=True)
class Loader:
    """Makes the pipelines of one artifact on one device."""

    artifact: Artifact
    device: Device
    opening: Opening
    purpose: str
    source: Path
    """An IR's folder, or a GGUF file where no IR of it can be kept."""

    def pipeline(self, *, long: bool = False) -> Any:
        """Load; ``long`` is the form for sequences beyond longrope's original context.

        Raises:
            BackendError: OpenVINO fails, or there is no place for the long form.
            UsageError: OpenVINO does not take one of the options.
        """
        source = self._long_form() if long else self.source
        try:
            return openvino_genai.LLMPipeline(source, self.device.id, **self._properties(long=long))
        except RuntimeError as error:
            raise _loading_error(error, self.opening.properties) from error

    @property
    def graph_properties(self) -> dict[str, Any]:
        """The properties that are OpenVINO's own, and not the pipeline's."""
        given = {key: value for key, value in self.opening.properties.items() if key not in _OF_PIPELINES}
        return self._precision() | given

    def _precision(self) -> dict[str, Any]:
        """What activations are computed in, unless the user says so.

        On CPUs with bfloat16 instructions OpenVINO would take that for them, three digits of precision: other answers
        than on other CPUs, and fp16 weights that agree with the original in 98 % of the positions instead of all.
        """
        if self.device.kind != "cpu":
            return {}
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        # An evaluation measures the weights, alike on every processor: without the activations' rounding to 8 bits,
        # which OpenVINO does where the processor is fast at it. See docs/decisions/0017.
        return exact | ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"} if self.purpose == "evaluation" else {})

    def _long_form(self) -> Path:
        folder = artifact_folder(self.artifact, "long", _VERSION)
        if folder is None:
            raise BackendError(
                f"beyond {self.opening.longrope_limit} tokens this model needs a store that can be "
                f"written, for another form of its graph"
            )
        longrope.make_long(self.source / weights.IR, folder)
        return folder

    def _properties(self, *, long: bool) -> dict[str, Any]:
        given = self.opening.properties
        properties = self._precision()
        if self.device.kind != "npu" and self.purpose != "conversation" and not long:
            # Starts in a third of the time, and can be cached when compiled. A conversation wants paged attention
            # instead, whose prefix cache makes the next turn's prompt nearly free, and a long prompt its memory, which
            # does not grow with the square of the length.
            properties["ATTENTION_BACKEND"] = "SDPA"
        properties |= given
        paged = properties.get("ATTENTION_BACKEND") != "SDPA"
        if "CACHE_DIR" not in given and not (self.device.kind == "cpu" and paged):
            # The CPU's paged attention model is compiled anew whatever the cache holds: writing there only costs time.
            variant = "long" if long else ""
            cache = compiled_folder(self.artifact, self.device, _VERSION, variant=variant, discard_older=True)
            if cache is None:
                logger.warning("the store cannot be written: the compiled model is not kept, the next start is as slow")
            else:
                properties["CACHE_DIR"] = str(cache)
        return properties


@contextlib.contextmanager
def loadable(file: Path, artifact: Artifact) -> Iterator[Path]:
    """What a pipeline is made of: an IR's folder, for a GGUF file too.

    A GGUF file is converted the first time, since its IR is read in a tenth of the time.
    """
    if file.suffix.lower() != ".gguf":
        yield file.parent
        return
    folder = artifact_folder(artifact, "ir", _VERSION)
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
            raise ModelError(f"OpenVINO GenAI cannot read {file}: {clean(error)}") from error
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


def _loading_error(error: RuntimeError, options: Mapping[str, Any]) -> Exception:
    text = clean(error)
    for key, value in options.items():
        if key in text or (value and str(value) in text):
            hint = f"leave --option {key}={value} out"
            return UsageError(f"OpenVINO does not take the option {key}={value}: {text}", hint=hint)
    return BackendError(f"loading failed: {text}")


def clean(error: BaseException) -> str:
    """OpenVINO's message without the places in its sources that it passed through."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(said) or str(error)
