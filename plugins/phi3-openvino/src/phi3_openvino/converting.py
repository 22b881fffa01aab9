"""The IR of a GGUF file, which OpenVINO GenAI makes on first use."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import openvino_genai
from phi3_core.backend import artifact_folder, write_problem
from phi3_core.errors import ModelError
from phi3_core.values import Artifact

from . import weights
from .derived import publish
from .loading import VERSION, clean

logger = logging.getLogger("phi3_core.openvino")
_MAX_PATH = 260


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
    if file.name == weights.IR:
        yield file.parent
        return
    folder = artifact_folder(artifact, "ir", VERSION)
    if folder is not None and (folder / weights.IR).is_file():
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as staging:
        try:
            gguf = _writable(file, Path(staging))
        except OSError as error:  # no room for a copy
            problem = write_problem(Path(staging), file.stat().st_size) or clean(error)
            logger.warning("%s: the converted model is not kept, the next start is as slow", problem)
            with _with_plain_path(file) as plain:
                yield plain
            return
        with _with_plain_path(gguf) as plain:
            if folder is None:
                yield plain
                return
            try:
                openvino_genai.LLMPipeline(plain, "CPU", ATTENTION_BACKEND="SDPA", enable_save_ov_model=True)
            except RuntimeError as error:
                problem = write_problem(folder, file.stat().st_size)
                if not problem:
                    raise ModelError(f"OpenVINO GenAI cannot read {file}: {clean(error)}") from error
                logger.warning("%s: the converted model is not kept, the next start is as slow", problem)
                yield plain
                return
        publish(gguf.parent, folder, (Path(weights.IR).with_suffix(".bin").name, weights.IR))
    yield folder


@contextlib.contextmanager
def _with_plain_path(file: Path) -> Iterator[Path]:
    """Provide a short path of ASCII characters for a file with such a name; its folder may be the current one then.

    On Windows, OpenVINO GenAI opens GGUF files by their path in the system's code page, which lacks most of the world's
    letters, and of fewer than 260 characters. IRs and caches have no such limits.
    """
    if str(file).isascii() and len(str(file)) < _MAX_PATH:
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
    if os.access(file, os.W_OK):
        # On Windows, symbolic links require a privilege, and other links the same drive.
        for link in (os.symlink, os.link):
            with contextlib.suppress(OSError):
                link(file.resolve(), here)
                return here
    shutil.copyfile(file, here)
    return here
