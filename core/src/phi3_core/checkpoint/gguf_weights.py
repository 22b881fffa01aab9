"""The weights of a Phi-3 checkpoint, read from a memory-mapped GGUF file block by block.

The folder of such a checkpoint has the ``config.json`` and the tokenizer that were made from the file's metadata, and a
``gguf.json`` that names the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from phi3_core.errors import ModelError

from .gguf import Gguf
from .gguf_blocks import grid_of, on_grid, values_of
from .gguf_header import Tensor
from .gguf_layout import Part, read_layout
from .safetensors import Floats, Grid, Weight, to_float16

_HINT = "download or copy the file again"

Bytes = npt.NDArray[np.uint8]


@frozen(kw_only=True, eq=False)
class _Rows:
    """The rows of one tensor."""

    type: int
    raw: Bytes
    """A read-only view of the mapping, ``[rows, bytes]``."""
    order: npt.NDArray[np.int64] | None
    """The row of the file for each row of the weight; None if they are the same."""

    def take(self, rows: slice) -> Bytes:
        """Return the bytes of some rows, in the weight's order."""
        return self.raw[rows] if self.order is None else self.raw[self.order[rows]]


@frozen(kw_only=True, eq=False)
class GgufWeight(Weight):
    """A weight whose values are those of tensors of a GGUF file, stacked by rows.

    ``raw`` has the shape of the weight only: its values are NaN, and do not take memory.
    """

    stacked: tuple[_Rows, ...] = field(repr=False)

    def float32(self, rows: slice = slice(None), out: Floats | None = None, *, check: bool = True) -> Floats:
        """Return some rows in float32; see :meth:`Weight.float32`."""
        chosen = range(*rows.indices(self.shape[0]))
        shape = (len(chosen), *self.shape[1:])
        values = np.empty(shape, np.float32) if out is None else out.reshape(shape)
        done = 0
        for kind, rows_of_part in self._taken(chosen):
            values[done : done + len(rows_of_part)] = values_of(kind, rows_of_part).reshape(-1, *self.shape[1:])
            done += len(rows_of_part)
        if check and not np.isfinite(values).all():
            self._fail()
        return values

    def _taken(self, chosen: range) -> Iterator[tuple[int, Bytes]]:
        """Yield the type and the bytes of the chosen rows, tensor by tensor."""
        done = start = 0
        for part in self.stacked:
            end = start + len(part.raw)
            # Rows are chosen in steps, so those of one tensor are a slice again.
            inside = range(chosen.start + done * chosen.step, min(end, chosen.stop), chosen.step)
            if inside:
                yield part.type, part.take(slice(inside.start - start, inside.stop - start, inside.step))
            done += len(inside)
            start = end

    @property
    def grid(self) -> Grid | None:
        """The grid that all values lie on: that of Q4_0 or Q8_0, if all tensors are of that type."""
        first, *others = {grid_of(part.type) for part in self.stacked}
        return None if others else first

    def on_grid(self, rows: slice) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
        """Return the integers and scales of some rows as the file has them; see :meth:`Weight.on_grid`."""
        found = [on_grid(kind, taken) for kind, taken in self._taken(range(*rows.indices(self.shape[0])))]
        integers, scales = (np.concatenate(each) for each in zip(*found, strict=True))
        if not np.isfinite(scales).all():
            self._fail()
        return integers, scales

    def float16(self, rows: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Return some rows in float16, clipped by :func:`to_float16`."""
        return to_float16(self.float32(rows))

    def check_finite(self, rows: slice) -> None:
        """Check that all values of some rows are finite.

        Raises:
            ModelError: a value is infinite or NaN.
        """
        self.float32(rows)

    def _fail(self) -> None:
        raise ModelError(f"{self.file} is damaged: tensor {self.name} has values that are not finite", hint=_HINT)


def open_gguf(gguf: Gguf) -> dict[str, Weight]:
    """Map the weights of a GGUF file, by their names in a Phi-3 checkpoint.

    Raises:
        ModelError: the file is damaged or not of the Phi-3 family.
    """
    mapped = {file: _map(file) for file in {tensor.file for tensor in gguf.tensors.values()}}
    return {name: _weight(name, made_of, gguf.tensors, mapped) for name, made_of in read_layout(gguf).weights.items()}


def _map(file: Path) -> mmap.mmap:
    try:
        with file.open("rb") as opened:
            # Read-only: Windows reserves memory for a writable mapping.
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"{file} cannot be mapped into memory: {error.strerror or error}") from error


def _weight(
    name: str, made_of: Sequence[Part], tensors: Mapping[str, Tensor], mapped: Mapping[Path, mmap.mmap]
) -> GgufWeight:
    stacked = tuple(_rows(tensors[part.name], part, mapped) for part in made_of)
    first = tensors[made_of[0].name]
    rows = sum(tensors[part.name].shape[0] for part in made_of)
    shape = (rows, *first.shape[1:])
    nowhere: npt.NDArray[Any] = np.broadcast_to(np.float32(np.nan), shape)
    return GgufWeight(name=name, file=first.file, dtype="F32", raw=nowhere, stacked=stacked)


def _rows(tensor: Tensor, part: Part, mapped: Mapping[Path, mmap.mmap]) -> _Rows:
    flat: Bytes = np.frombuffer(mapped[tensor.file], np.uint8, tensor.size, tensor.offset)
    rows = tensor.shape[0]
    order = None
    if part.heads is not None:
        # GGUF has the two rows that rotate together side by side; Phi-3 has all first ones of a head, then all second.
        order = np.arange(rows, dtype=np.int64).reshape(part.heads, -1, 2).swapaxes(1, 2).reshape(rows)
    return _Rows(type=tensor.type, raw=flat.reshape(rows, -1), order=order)
