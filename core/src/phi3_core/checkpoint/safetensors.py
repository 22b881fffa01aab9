"""Weights in memory-mapped safetensors files.

Mapping a file uses address space only: the system loads pages on access and can discard them again.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from phi3_core.errors import ModelError

from .contents import INDEX, SINGLE, stored_files, weight_files
from .safetensors_header import parse_object, read_header

Floats = npt.NDArray[np.float32]

STORED: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
"""Types of weights and the NumPy types that hold them. NumPy has no bfloat16, so BF16 is kept as bit patterns."""
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
ITEM_BYTES |= {"U64": 8, "I64": 8, "F64": 8}
"""Bytes per element, by the type's name in the header."""
_MAGNITUDE = {"F16": np.uint16(0x7FFF), "BF16": np.uint16(0x7FFF), "F32": np.uint32(0x7FFF_FFFF)}
_INFINITY = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F80_0000}
_BLOCK = 1 << 22
"""Values to compare at once."""
_HINT = "fetch the file again"


class Grid(NamedTuple):
    """Values that are whole multiples of a float16 scale: what weights are that were quantized symmetrically."""

    bits: int
    group_size: int
    """Consecutive inputs that share a scale."""


@frozen(kw_only=True, eq=False)
class Weight:
    """One tensor in a memory-mapped file. ``raw`` is a read-only view of the mapping."""

    name: str
    file: Path
    dtype: str
    raw: npt.NDArray[Any] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.raw.shape

    @property
    def grid(self) -> Grid | None:
        """The grid that all values lie on; None if they are on none that is known."""
        return None

    def on_grid(self, rows: slice) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
        """Return the integers, ``[rows, inputs]``, and the scales, ``[rows, groups]``, of a weight with a grid."""
        raise NotImplementedError(f"{self.name} is on no grid")

    def float32(self, rows: slice = slice(None), out: Floats | None = None, *, check: bool = True) -> Floats:
        """Return a copy of some rows in float32.

        Args:
            rows: the rows to convert.
            out: a flat array of their size to store the result in.
            check: whether to check that all values are finite. Checking a result computed from them and calling
                :meth:`check_finite` only if it is not finite is cheaper.

        Raises:
            ModelError: a value is not finite.
        """
        part = self.raw[rows]
        if check:
            self.check_finite(rows)
        values: Floats = np.empty(part.shape, np.float32) if out is None else out.reshape(part.shape)
        if self.dtype == "BF16":  # the upper 16 bits of a float32
            bits = values.view(np.uint32)
            np.copyto(bits, part)
            bits <<= 16
        else:
            np.copyto(values, part)
        return values

    def float16(self, rows: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Return some rows in float16; a view if the tensor is F16, else a copy clipped by :func:`to_float16`.

        Raises:
            ModelError: a value is not finite.
        """
        if self.dtype == "F16":
            self.check_finite(rows)
            part: npt.NDArray[np.float16] = self.raw[rows]
            return part
        return to_float16(self.float32(rows))

    def check_finite(self, rows: slice) -> None:
        """Check that all values of some rows are finite.

        Raises:
            ModelError: a value is infinite or NaN.
        """
        # The exponents of infinity and NaN have all bits set.
        part = self.raw[rows]
        bits = part.view(f"<u{part.itemsize}") & _MAGNITUDE[self.dtype]
        if bits.size and bits.max() >= _INFINITY[self.dtype]:
            raise ModelError(f"{self.file} is damaged: tensor {self.name} has values that are not finite", hint=_HINT)

    def is_zero(self) -> bool:
        """Return whether all values are known to be zero."""
        if self.dtype not in STORED:
            return False
        flat = self.raw.reshape(-1)
        return not (flat.view(f"<u{flat.itemsize}") & _MAGNITUDE[self.dtype]).any()

    def equals(self, other: Weight) -> bool:
        """Return whether another tensor has the same shape and values, also as another type."""
        if self.shape != other.shape or not {self.dtype, other.dtype} <= STORED.keys():
            return False
        return all(np.array_equal(self.float32(rows), other.float32(rows)) for rows in self.blocks(_BLOCK))

    def blocks(self, elements: int) -> Iterator[slice]:
        """Return slices that divide the rows into blocks of about ``elements`` values."""
        step = max(1, elements // max(1, math.prod(self.shape[1:])))
        return (slice(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step))


def to_float16(values: Floats) -> npt.NDArray[np.float16]:
    """Convert to float16, clipped to its largest finite value, 65504: an infinity would propagate through the model."""
    half: npt.NDArray[np.float16] = np.clip(values, -65504, 65504).astype(np.float16)
    return half


def open_weights(folder: Path) -> dict[str, Weight]:
    """Map the tensors of a checkpoint folder, in one file or in shards with an index.

    As in transformers, ``model.safetensors`` takes precedence: the index beside it may be that of an earlier save.

    Raises:
        ModelError: a file is missing or damaged.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return dict(map_file(single))
    if index.is_file():
        return _open_shards(folder, index)
    found = weight_files(file.name for file in folder.glob("*.safetensors"))
    if found:
        raise ModelError(
            f"{folder} has {found[0]}, but neither {SINGLE} nor {INDEX}, which says what lies where",
            hint="fetch the whole checkpoint again",
        )
    raise ModelError(
        f"{folder} has neither {SINGLE} nor {INDEX}",
        hint="give a folder with a Hugging Face checkpoint in safetensors",
    )


def stored_bytes(folder: Path) -> int:
    """Return the size in bytes of the files that hold the weights of a checkpoint folder."""
    return sum((folder / name).stat().st_size for name in stored_files(folder))


def _open_shards(folder: Path, index: Path) -> dict[str, Weight]:
    try:
        places = parse_object(index.read_bytes()).get("weight_map")
    except ValueError as error:
        raise ModelError(f"{index} is damaged: {error}", hint=_HINT) from error
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index} has no weight_map", hint=_HINT)
    shards = sorted(set(places.values()))
    for shard in shards:
        if shard in {".", ".."} or any(letter in shard for letter in '/\\:"\0'):
            raise ModelError(f"{index} names a file outside its folder: {shard!r}")
    there = {entry.name for entry in folder.iterdir() if entry.is_file()}
    missing = [shard for shard in shards if shard not in there]
    if missing:
        more = f", and so are {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(f"{folder / missing[0]} is missing{more}, though {index.name} names it", hint=_HINT)
    weights: dict[str, Weight] = {}
    for shard in shards:
        weights.update(map_file(folder / shard))
    for name, shard in places.items():
        if name not in weights:
            raise ModelError(f"{folder / shard} has no tensor {name}, though {index.name} says so", hint=_HINT)
    return weights


def map_file(path: Path) -> Mapping[str, Weight]:
    """Map the tensors of one file after checking every size, offset and type in its header.

    Raises:
        ModelError: the file is damaged, or cannot be mapped.
    """
    header, start = read_header(path)
    size = path.stat().st_size
    with path.open("rb") as opened:
        # Read-only: Windows reserves memory for a writable mapping.
        try:
            memory = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise ModelError(f"{path} cannot be mapped into memory: {error}") from error
    header.pop("__metadata__", None)
    spans = {name: _span(path, name, entry, size - start) for name, entry in header.items()}
    _check_apart(path, spans)
    return {
        name: Weight(name=name, file=path, dtype=dtype, raw=_view(memory, start + first, dtype, shape))
        for name, (dtype, shape, first, _) in spans.items()
    }


_Span = tuple[str, tuple[int, ...], int, int]


def _span(path: Path, name: str, entry: Any, available: int) -> _Span:
    """Return the type, shape and byte range of one tensor."""
    try:
        dtype, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, first, last))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or not isinstance(dtype, str):
        raise ModelError(f"{path} is damaged: the header's entry for tensor {name} is malformed", hint=_HINT)
    if last > available:
        raise ModelError(
            f"{path} is truncated: tensor {name} ends {last - available} bytes behind the end of the file", hint=_HINT
        )
    item = ITEM_BYTES.get(dtype)
    if first > last or (item is not None and last - first != item * math.prod(shape)):
        raise ModelError(
            f"{path} is damaged: tensor {name} of {dtype} {list(shape)} cannot have {last - first} bytes", hint=_HINT
        )
    return dtype, shape, first, last


def _check_apart(path: Path, spans: Mapping[str, _Span]) -> None:
    end = 0
    for name, (_, _, first, last) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if first < end:
            raise ModelError(f"{path} is damaged: tensor {name} overlaps another", hint=_HINT)
        end = last


def _view(memory: mmap.mmap, offset: int, dtype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    stored = STORED.get(dtype)
    if stored is None:  # not a type of Phi-3 weights; Checkpoint reports it if the tensor is needed
        return np.empty((0, *shape[1:]), np.uint8)
    flat: npt.NDArray[Any] = np.frombuffer(memory, stored, math.prod(shape), offset)
    return flat.reshape(shape)
