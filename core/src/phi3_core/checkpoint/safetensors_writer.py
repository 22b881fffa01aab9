"""A safetensors writer that needs memory for one block of rows only.

``safetensors.py`` describes the format.
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

from .safetensors_header import ITEM_BYTES

if TYPE_CHECKING:
    from typing_extensions import Self

_ALIGNMENT = 64


@frozen(kw_only=True)
class TensorSpec:
    """The name, type and shape of a tensor to write."""

    name: str
    dtype: str
    """The type's name in safetensors: ``F16``, ``BF16``, ``F32``, ``I8``, ``U8``, …"""
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """The size of the tensor in bytes."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


class SafetensorsWriter:
    """Writes the tensors of a safetensors file in any order, some rows at a time."""

    def __init__(self, file: Path, tensors: Sequence[TensorSpec], *, metadata: Mapping[str, str] | None = None) -> None:
        """Write the header and extend the file to its final size.

        Args:
            file: the file to write; an existing one is replaced.
            tensors: all tensors of the file.
            metadata: added to the header's ``{"format": "pt"}``.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
        self._places: dict[str, tuple[int, TensorSpec]] = {}
        end = 0
        # Wide types first, so that every tensor is aligned to its item size.
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
        """Write some rows of a tensor.

        Args:
            name: the tensor's name.
            values: the rows, ``[rows, …]``.
            first_row: the index of the first of them.

        Raises:
            ValueError: the rows differ in size from the tensor's.
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
