"""The form of weights that this backend loads: one safetensors file, written piece by piece.

Linear layers are stored as the library's kernels take them: half precision, or integers with one scale per output.
Tensors have the names of the checkpoint; a rounded weight ``X.weight`` (``I8 [outputs, inputs]``, or for four bits
``U8 [outputs, inputs / 2]``, the first of two in the low half) has its scales in ``X.scale``, ``F16 [outputs, 1]``.
A rounded output layer is there also if the checkpoint ties it to the embedding, which stays in half precision.
"""

from __future__ import annotations

from pathlib import Path

from phi3_core.backend import read_header
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS

FILE = "model.npu"
"""Not ``*.safetensors``, which core takes for original weights in a folder that has lost its ``phi3.json``."""
MARK = "phi3_npu_precision"
"""Names the precision in the header's metadata."""


def scale_of(weight: str) -> str:
    """The name of a weight's scales."""
    return f"{weight.removesuffix('.weight')}.scale"


def recognize(path: Path) -> str | None:
    """The precision of the weights in a folder, or None if this backend did not write them.

    Raises:
        ModelError: it did, and they are damaged.
    """
    file = path / FILE
    if not file.is_file():
        return None
    try:
        header, start = read_header(file)
        precision = header.pop("__metadata__", {}).get(MARK)
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ModelError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if precision not in PRECISIONS:
        return None
    size = file.stat().st_size
    if start + end != size:
        raise ModelError(f"{file} is damaged: {size} bytes, where its header tells of {start + end}")
    return str(precision)
