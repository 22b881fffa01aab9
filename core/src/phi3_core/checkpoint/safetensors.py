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
from .safetensors_header import read_header, read_spans
from .shards import check_placed, check_present, read_index, without_index

Floats = npt.NDArray[np.float32]

STORED: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
"""Types of weights and the NumPy types that hold them. NumPy has no bfloat16, so BF16 is kept as bit patterns."""
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
        raise without_index(folder, found[0])
    raise ModelError(
        f"{folder} has neither {SINGLE} nor {INDEX}",
        hint="give a folder with a Hugging Face checkpoint in safetensors",
    )


def stored_bytes(folder: Path) -> int:
    """Return the size in bytes of the files that hold the weights of a checkpoint folder."""
    return sum((folder / name).stat().st_size for name in stored_files(folder))


def _open_shards(folder: Path, index: Path) -> dict[str, Weight]:
    places = read_index(index, index.read_bytes())
    check_present(index, places, {entry.name for entry in folder.iterdir() if entry.is_file()})
    weights: dict[str, Weight] = {}
    for shard in sorted(set(places.values())):
        weights.update(map_file(folder / shard))
    check_placed(index, places, weights)
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
    spans = read_spans(path, header, size - start)
    return {
        name: Weight(name=name, file=path, dtype=dtype, raw=_view(memory, start + first, dtype, shape))
        for name, (dtype, shape, first, _) in spans.items()
    }


def _view(memory: mmap.mmap, offset: int, dtype: str, shape: Sequence[int]) -> npt.NDArray[Any]:
    stored = STORED.get(dtype)
    if stored is None:  # not a type of Phi-3 weights; Checkpoint reports it if the tensor is needed
        return np.empty((0, *shape[1:]), np.uint8)
    flat: npt.NDArray[Any] = np.frombuffer(memory, stored, math.prod(shape), offset)
    return flat.reshape(shape)
