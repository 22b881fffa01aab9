"""The form of weights that this backend loads: one safetensors file, written piece by piece.

Linear layers are stored as the library's kernels take them: half precision, or integers with one scale per output.
Tensors have the names of the checkpoint; a rounded weight ``X.weight`` (``I8 [outputs, inputs]``, or for four bits
``U8 [outputs, inputs / 2]``, the first of two in the low half) has its scales in ``X.scale``, ``F16 [outputs, 1]``.
A rounded output layer is there also if the checkpoint ties it to the embedding, which stays in half precision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from attrs import frozen
from phi3_core.errors import ModelError
from phi3_core.values import PRECISIONS

FILE = "model.npu"
"""Not ``*.safetensors``, which core takes for original weights in a folder that has lost its ``phi3.json``."""
_MARK = "phi3_npu_precision"
_LARGEST_HEADER = 1 << 24
_ITEM_BYTES = {"F16": 2, "F32": 4, "I8": 1, "U8": 1}
_ALIGNMENT = 64


@frozen(kw_only=True)
class Tensor:
    """What a tensor of the file will be."""

    name: str
    dtype: str
    """``F16``, ``F32``, ``I8`` or ``U8``."""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return _ITEM_BYTES[self.dtype] * math.prod(self.shape)


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
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            return None
        try:
            header = json.loads(stream.read(length))
            precision = header.pop("__metadata__", {}).get(_MARK)
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
    if precision not in PRECISIONS:
        return None
    if 8 + length + end != size:
        raise ModelError(f"{file} is damaged: {size} bytes, where its header tells of {8 + length + end}")
    return str(precision)


class Writer:
    """Writes tensors into their places in any order, a block of rows at a time, until :meth:`close`."""

    def __init__(self, file: Path, precision: str, tensors: Sequence[Tensor]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt", _MARK: precision}}
        self._places: dict[str, tuple[int, Tensor]] = {}
        end = 0
        # Wide types first, so that every tensor begins where its type may begin.
        for tensor in sorted(tensors, key=lambda tensor: -_ITEM_BYTES[tensor.dtype]):
            start, end = end, end + tensor.size_bytes
            header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end]}
            self._places[tensor.name] = (start, tensor)
        encoded = json.dumps(header).encode()
        encoded += b" " * (-(len(encoded) + 8) % _ALIGNMENT)
        self._start = 8 + len(encoded)
        self._stream = file.open("wb")
        self._stream.write(len(encoded).to_bytes(8, "little") + encoded)
        self._stream.truncate(self._start + end)

    def put(self, name: str, values: npt.NDArray[Any], first_row: int = 0) -> None:
        """Write some rows of a tensor."""
        start, tensor = self._places[name]
        row = tensor.size_bytes // tensor.shape[0]
        if values.nbytes != row * len(values):
            raise ValueError(f"{name} has rows of {row} bytes, not {values.nbytes // max(1, len(values))}")
        self._stream.seek(self._start + start + first_row * row)
        self._stream.write(values.tobytes())

    def close(self) -> None:
        self._stream.close()
