"""Load weights into a pipeline of OpenVINO GenAI: properties, compiled models and derived graphs."""

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
from .derived import publish
from .opening import Opening

logger = logging.getLogger("phi3_core.openvino")
_OF_PIPELINES = {"ATTENTION_BACKEND", "MAX_PROMPT_LEN", "MIN_RESPONSE_LEN"}
# Release and build, without the commit.
_VERSION = "-".join(openvino.__version__.split("-")[:2])


@frozen(kw_only=True)
class Loader:
    """Creates the pipelines of one artifact on one device."""

    artifact: Artifact
    device: Device
    opening: Opening
    purpose: str
    source: Path
    """The folder of an IR, or a GGUF file if the store is not writable."""

    def pipeline(self, *, long: bool = False) -> Any:
        """Return a new pipeline.

        Args:
            long: whether to load the long form of the graph (``longrope.py``).

        Raises:
            BackendError: OpenVINO failed, or the store is not writable and the long form is needed.
            UsageError: OpenVINO does not accept an option.
        """
        source = self._long_form() if long else self.source
        try:
            return openvino_genai.LLMPipeline(source, self.device.id, **self._properties(long=long))
        except RuntimeError as error:
            raise _loading_error(error, self.opening.properties) from error

    @property
    def graph_properties(self) -> dict[str, Any]:
        """The properties for compiling the graph without a pipeline."""
        given = {key: value for key, value in self.opening.properties.items() if key not in _OF_PIPELINES}
        return self._precision() | given

    def _precision(self) -> dict[str, Any]:
        """Return the default properties for the precision of activations.

        On CPUs with bfloat16 instructions OpenVINO's default is bfloat16. Answers would then depend on the processor,
        and fp16 weights would agree with the original weights at 98 % of the positions instead of all.
        """
        if self.device.kind != "cpu":
            return {}
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        # An evaluation measures the weights and must not depend on the processor: it disables the quantization of
        # activations to 8 bits, which OpenVINO uses on some processors. See docs/decisions/0017.
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
            # SDPA starts in a third of the time, and its compiled model can be cached. Paged attention is better for
            # conversations, because its prefix cache covers most of the next prompt, and for long prompts, because its
            # memory does not grow with the square of the length.
            properties["ATTENTION_BACKEND"] = "SDPA"
        properties |= given
        paged = properties.get("ATTENTION_BACKEND") != "SDPA"
        if "CACHE_DIR" not in given and not (self.device.kind == "cpu" and paged):
            # On the CPU, paged attention models are compiled again regardless of the cache, so writing it wastes time.
            variant = "long" if long else ""
            cache = compiled_folder(self.artifact, self.device, _VERSION, variant=variant, discard_older=True)
            if cache is None:
                logger.warning("the store cannot be written: the compiled model is not kept, the next start is as slow")
            else:
                properties["CACHE_DIR"] = str(cache)
        return properties


@contextlib.contextmanager
def loadable(file: Path, artifact: Artifact) -> Iterator[Path]:
    """Provide the path that a pipeline can load: the folder of an IR, or a GGUF file if the store is not writable.

    A GGUF file is converted to an IR on first use, because the IR loads in a tenth of the time.

    Args:
        file: an IR's ``.xml`` file, or a GGUF file.
        artifact: the artifact with that file.

    Raises:
        ModelError: OpenVINO GenAI cannot read the GGUF file.
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
        with _with_plain_path(gguf) as plain:
            if folder is None:
                yield plain
                return
            try:
                openvino_genai.LLMPipeline(plain, "CPU", ATTENTION_BACKEND="SDPA", enable_save_ov_model=True)
            except RuntimeError as error:
                raise ModelError(f"OpenVINO GenAI cannot read {file}: {clean(error)}") from error
        publish(gguf.parent, folder, (Path(weights.IR).with_suffix(".bin").name, weights.IR))
    yield folder


@contextlib.contextmanager
def _with_plain_path(file: Path) -> Iterator[Path]:
    """Provide a path of ASCII characters for a file with such a name; meanwhile its folder may be the current one.

    On Windows, OpenVINO GenAI opens GGUF files by their path in the system's code page, which lacks most of the world's
    letters. IRs and caches have no such limit.
    """
    if str(file).isascii():
        yield file
        return
    before = Path.cwd()
    os.chdir(file.parent)
    try:
        yield Path(file.name)
    finally:
        os.chdir(before)


def _writable(file: Path, folder: Path) -> Path:
    """Link or copy a file into ``folder``: OpenVINO GenAI opens a GGUF file for writing and saves the IR beside it."""
    here = folder / "model.gguf"
    try:
        if os.access(file, os.W_OK):
            here.symlink_to(file.resolve())
            return here
    except OSError:  # on Windows, symbolic links require a privilege
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
    """Return OpenVINO's error message without its source locations."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(said) or str(error)
