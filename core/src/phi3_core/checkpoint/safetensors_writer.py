"""A safetensors file, written tensor by tensor and block by block, so that memory is that of a block.

The format is described in ``safetensors.py`` of this package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from attrs import frozen

from .safetensors import ITEM_BYTES

if TYPE_CHECKING:
    from typing_extensions import Self

_ALIGNMENT = 64


@frozen(kw_only=True)
class TensorSpec:
    """What a tensor of the file will be."""

    name: str
    dtype: str
    """As safetensors has it: ``F16``, ``BF16``, ``F32``, ``I8``, ``U8``, …"""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class SafetensorsWriter:
    """Writes tensors into their places in any order, some rows at a time, until it is closed."""

    def __init__(self, file: Path, tensors: Sequence[TensorSpec], *, metadata: Mapping[str, str] | None = None) -> None:
        """Write the header, and make the file as long as it will be.

        Args:
            file: the file to write; what is there is replaced.
            tensors: all that the file will hold.
            metadata: goes into the header beside ``{"format": "pt"}``.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        self._places: dict[str, tuple[int, TensorSpec]] = {}
        end = 0
        # Wide types first, so that every tensor begins where its type may begin.
        for tensor in sorted(tensors, key=lambda tensor: -ITEM_BYTES[tensor.dtype]):
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
        """Write some rows of a tensor, ``[rows, …]``, from ``first_row`` on.

        Raises:
            ValueError: the rows are not as long as the tensor's.
        """
        start, tensor = self._places[name]
        row = tensor.size_bytes // tensor.shape[0]
        if values.nbytes != row * len(values):
            raise ValueError(f"{name} has rows of {row} bytes, not {values.nbytes // max(1, len(values))}")
        self._stream.seek(self._start + start + first_row * row)
        self._stream.write(values.tobytes())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
