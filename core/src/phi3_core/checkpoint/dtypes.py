"""The types of the tensors in safetensors files, from their headers, without numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from phi3_core.errors import ModelError

from .contents import stored_files
from .safetensors_header import read_header

_INTEGERS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}


def check_floating(folder: Path) -> None:
    """Check that the weights of a checkpoint folder are floating-point numbers, as original weights are.

    A header that cannot be read is left to those who read the weights.

    Raises:
        ModelError: the matrices of a layer are integers.
    """
    for file in stored_files(folder):
        for name, entry in _header(folder / file).items():
            dtype, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
            is_matrix = isinstance(shape, list) and len(shape) > 1 and "weight" in name.rpartition(".")[2]
            if is_matrix and dtype in _INTEGERS:
                raise ModelError(
                    f"{folder / file}: tensor {name} is {dtype}, and original weights are floating-point numbers",
                    hint="phi3 models list shows models whose original weights are on the hub",
                )


def _header(file: Path) -> dict[str, Any]:
    try:
        return read_header(file)[0]
    except (OSError, ModelError):
        return {}
