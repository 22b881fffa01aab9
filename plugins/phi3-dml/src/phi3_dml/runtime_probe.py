"""``python -m phi3_dml.runtime_probe [STEP …]``: print what ONNX Runtime GenAI reports, skipping the given steps.

Importing it loads native libraries, which may be missing, crash or hang; :mod:`phi3_dml.runtime` therefore runs this in
a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from . import catalogue
from .adapters.windows_probe import execute

RUNTIME, CATALOGUE = "runtime", "catalogue"


def steps() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the steps as name and function."""
    yield RUNTIME, _runtime
    yield CATALOGUE, catalogue.entries


def _runtime() -> dict[str, Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime_genai as og

    return {"package": getattr(og, "__id__", ""), "version": og.__version__, "directml": bool(og.is_dml_available())}


if __name__ == "__main__":
    execute(steps(), sys.argv[1:])
