"""The artifact format of this backend: one safetensors file.

Linear layers are stored as the library's kernels read them, in float16 or as integers with one scale per output
channel. Tensors have the names of the checkpoint. A rounded weight ``X.weight`` is ``I8 [outputs, inputs]``, or for 4
bits ``U8 [outputs, inputs / 2]`` with the first of two integers in the low half of a byte; its scales are ``X.scale``,
``F16 [outputs, 1]``. A rounded output layer is stored even if the checkpoint ties it to the embedding, which stays in
float16.
"""

from __future__ import annotations

from pathlib import Path

from phi3_core.backend import read_header
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS

FILE = "model.npu"
"""Not ``*.safetensors``: core would treat a folder without its ``phi3.json`` as original weights."""
MARK = "phi3_npu_precision"
"""The metadata key of the precision in the header."""


def scale_of(weight: str) -> str:
    """Return the name of the scales of a weight."""
    return f"{weight.removesuffix('.weight')}.scale"


def recognize(path: Path) -> str | None:
    """Return the precision of the weights in a folder, or None if this backend did not write them.

    Raises:
        ModelError: this backend wrote them, and they are damaged.
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
