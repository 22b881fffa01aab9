"""A reader of GGUF headers that checks every count and length before it uses it.

Native GGUF readers abort the process on a truncated file. The reader of the ``gguf`` package takes seconds for a
vocabulary and does not terminate on an absurd count.
The format is specified in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import re
import struct
import sys
from array import array
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NoReturn

from attrs import define, evolve, field, frozen

from phi3_core.errors import ModelError

from .gguf_types import TYPES

MAGIC = b"GGUF"
_POINTER = b"version https://git-lfs"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
_LIMIT = 64 << 20
"""Largest header in bytes; that of a vocabulary of 256,000 tokens takes a sixth of it."""
_MOST_DIMENSIONS = 4
_MOST_ENTRIES, _MOST_TEXTS = 1 << 16, 1 << 21
"""Four times the counts of the largest models; a header of this size is still read within seconds."""
_HINT = "download or copy the file again"
_CUT = re.compile(r"split-?[a-z]{1,2}$|part-?(\d+of\d+|[a-z]{1,2})$")
"""How the pieces of a file are called that was cut anywhere, before GGUF had parts of its own."""
_LEAST_ENTRY, _LEAST_TENSOR = 13, 32
"""Sizes in bytes of the shortest metadata entry and of the shortest tensor description."""


@frozen(kw_only=True)
class Tensor:
    """The type and position of a tensor. ``shape`` is in NumPy's order, ``[rows, columns]``; sizes are in bytes."""

    file: Path
    type: int
    """The number of one of :data:`~phi3_core.checkpoint.gguf_types.TYPES`."""
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the tensors of a file.

    Arrays of strings are returned as ``list``, arrays of numbers as ``array``.

    Raises:
        ModelError: the file is damaged or truncated.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would block
            raise ModelError(f"{path} is not a file")
        size = path.stat().st_size
        with path.open("rb") as file:
            return read_header_of(file, path, size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def read_header_of(file: BinaryIO, path: PurePath, size: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the tensors of an open file, of which no more than the header is read.

    Args:
        file: the file, at its beginning. It need not be seekable.
        path: the file's name, for messages and the tensors.
        size: the size of the whole file in bytes.

    Raises:
        ModelError: the header is damaged, or the file truncated.
    """
    return _Header(path=path, file=file, size=size, left=min(size, _LIMIT)).read()


@define(kw_only=True)
class _Header:
    path: PurePath
    file: BinaryIO
    size: int
    left: int
    """Bytes that may still be read; every count and length is checked against it before it is used."""
    metadata: dict[str, Any] = field(factory=dict)

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        self.check_beginning()
        tensors, entries = self.number("Q"), self.number("Q")
        self.room(tensors * _LEAST_TENSOR + entries * _LEAST_ENTRY)
        if max(tensors, entries) > _MOST_ENTRIES:
            self.fault(f"claims {tensors} tensors and {entries} entries of metadata, too many to be true")
        for _ in range(entries):
            key = self.text()
            if key in self.metadata:
                self.fault(f"has {key!r} twice in its metadata")
            self.metadata[key] = self.value(self.number("I"))
        found: dict[str, Tensor] = {}
        for _ in range(tensors):
            name = self.text()
            if name in found:
                self.fault(f"has the tensor {name!r} twice")
            found[name] = self.tensor(name)
        return self.metadata, self.placed(found)

    def check_beginning(self) -> None:
        """Check that the file is a GGUF file of a known version."""
        if self.size == 0:
            self.fault("is empty")
        if (first := self.file.read(4)) != MAGIC:
            if first + self.file.read(len(_POINTER) - len(first)) == _POINTER:
                self.fault("is a Git LFS pointer, not the file", hint="run git lfs pull, or download the file itself")
            self.fault("is not a GGUF file")
        self.left -= 4
        if (version := self.number("I")) not in _VERSIONS:
            if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
                self.fault("is a GGUF file for big-endian processors", hint="use the file for little-endian ones")
            hint = "use a newer file of this model" if version < min(_VERSIONS) else _HINT
            self.fault(f"has GGUF version {version}; only 2 and 3 are known", hint=hint)

    def tensor(self, name: str) -> Tensor:
        """Read one tensor description; its offset is relative to the start of the data."""
        if not 1 <= (dimensions := self.number("I")) <= _MOST_DIMENSIONS:
            self.fault(f"has the tensor {name!r} with {dimensions} dimensions")
        shape = tuple(reversed([self.number("Q") for _ in range(dimensions)]))
        kind, offset = self.number("I"), self.number("Q")
        if kind not in TYPES:
            self.fault(f"has the tensor {name!r} of the unknown type {kind}")
        _, elements, size, _ = TYPES[kind]
        if not all(shape) or shape[-1] % elements:
            self.fault(f"has the tensor {name!r} of the impossible shape {list(shape)}")
        size *= math.prod(shape) // elements
        return Tensor(file=Path(self.path), type=kind, shape=shape, offset=offset, size=size)

    def placed(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with offsets from the start of the file, and check that they end within it."""
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self.fault(f"has the impossible alignment {alignment!r}")
        start = -(-self.file.tell() // alignment) * alignment
        for name, tensor in tensors.items():
            if tensor.offset % alignment:
                self.fault(f"has the tensor {name!r} at the impossible offset {tensor.offset}")
        whole = start + max((tensor.offset + tensor.size for tensor in tensors.values()), default=0)
        if tensors and whole > self.size:
            cut = _CUT.search(self.path.name)
            hint = "join its parts to one file, in their order" if cut else _HINT
            self.fault(f"is truncated: {self.size} of {whole} bytes", hint=hint)
        return {name: evolve(tensor, offset=start + tensor.offset) for name, tensor in tensors.items()}

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _LIST:
            self.fault(f"has metadata of the unknown type {kind}")
        kind, count = self.number("I"), self.number("Q")
        if kind == _TEXT:
            self.room(count * 8)
            if count > _MOST_TEXTS:
                self.fault(f"has a list of {count} texts in its metadata, too many to be true")
            return [self.text() for _ in range(count)]
        if kind not in _SCALARS:
            self.fault(f"has a list of the unknown type {kind} in its metadata")
        numbers = array(_SCALARS[kind].replace("?", "B"))
        numbers.frombytes(self.take(count * numbers.itemsize))
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        # Byte-level vocabularies contain tokens that are incomplete UTF-8 sequences.
        return self.take(self.number("Q")).decode("utf-8", errors="replace")

    def take(self, length: int) -> bytes:
        self.room(length)
        self.left -= length
        return self.file.read(length)

    def room(self, length: int) -> None:
        if length > self.left:
            self.fault(f"is truncated or damaged: its header asks for more than the file's {self.size} bytes")

    def fault(self, problem: str, *, hint: str = "") -> NoReturn:
        raise ModelError(f"{self.path} {problem}", hint=hint or _HINT)
