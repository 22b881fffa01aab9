"""Weights in safetensors files, mapped into memory and never read whole.

A safetensors file is eight bytes of header length (little endian), a JSON header that gives every tensor's
type, shape and place, and the data (https://github.com/huggingface/safetensors#format). Mapping it costs
address space only; pages come in as they are touched and can be dropped again by the system.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from phi3_core.errors import ModelError

Floats = npt.NDArray[np.float32]

STORED: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}
"""Types that weights come in, and what numpy holds them in. It has no bfloat16: those stay bit patterns."""
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
ITEM_BYTES |= {"U64": 8, "I64": 8, "F64": 8}
"""Bytes of one number, by its type's name in the header."""
_MAGNITUDE = {"F16": np.uint16(0x7FFF), "BF16": np.uint16(0x7FFF), "F32": np.uint32(0x7FFF_FFFF)}
_INFINITY = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F80_0000}
_LONGEST_HEADER = 100_000_000
_HINT = "fetch the file again"


@frozen(kw_only=True, eq=False)
class Weight:
    """One tensor, still in its file. ``raw`` shares the mapping's memory; writing to it changes a private copy."""

    name: str
    file: Path
    dtype: str
    raw: npt.NDArray[Any] = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape

    def float32(self, rows: slice = slice(None), out: Floats | None = None, *, check: bool = True) -> Floats:
        """A copy of some rows in float32, in the memory of ``out`` if it is given: a flat array of their size.

        Raises:
            ModelError: some are not finite. It is cheaper to see that in what is made of them, and to call
                :meth:`check_finite` then: leave out the ``check`` here.
        """
        part = self.raw[rows]
        if check:
            self.check_finite(rows)
        values: Floats = np.empty(part.shape, np.float32) if out is None else out.reshape(part.shape)
        if self.dtype == "BF16":  # the upper half of a float32's bits
            bits = values.view(np.uint32)
            np.copyto(bits, part)
            bits <<= 16
        else:
            np.copyto(values, part)
        return values

    def float16(self, rows: slice = slice(None)) -> npt.NDArray[np.float16]:
        """Some rows in half precision; those of an F16 tensor share its memory.

        Raises:
            ModelError: some are not finite.
        """
        if self.dtype == "F16":
            self.check_finite(rows)
            part: npt.NDArray[np.float16] = self.raw[rows]
            return part
        return to_float16(self.float32(rows))

    def check_finite(self, rows: slice) -> None:
        """Infinities and what is not a number have all bits of the exponent set."""
        part = self.raw[rows]
        bits = part.view(f"<u{part.itemsize}") & _MAGNITUDE[self.dtype]
        if bits.size and bits.max() >= _INFINITY[self.dtype]:
            raise ModelError(f"{self.file} is damaged: tensor {self.name} has values that are not finite", hint=_HINT)

    def blocks(self, elements: int) -> Iterator[slice]:
        """Slices of rows with about ``elements`` values each."""
        step = max(1, elements // max(1, math.prod(self.shape[1:])))
        return (slice(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step))


def to_float16(values: Floats) -> npt.NDArray[np.float16]:
    """Convert to half precision, whose largest number is 65504: weights are far below, and infinity would spread."""
    half: npt.NDArray[np.float16] = np.clip(values, -65504, 65504).astype(np.float16)
    return half


def open_weights(folder: Path) -> dict[str, Weight]:
    """Map every tensor of the checkpoint in a folder, be it one file or shards with an index."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _open_shards(folder, index)
    single = folder / "model.safetensors"
    if single.is_file():
        return dict(map_file(single))
    raise ModelError(
        f"{folder} has neither model.safetensors nor model.safetensors.index.json",
        hint="give a folder with a Hugging Face checkpoint in safetensors",
    )


def _open_shards(folder: Path, index: Path) -> dict[str, Weight]:
    places = _json(index, index.read_bytes()).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index} has no weight_map", hint=_HINT)
    weights: dict[str, Weight] = {}
    for shard in sorted(set(places.values())):
        if shard in {".", ".."} or any(letter in shard for letter in '/\\:"\0'):
            raise ModelError(f"{index} names a file outside its folder: {shard!r}")
        path = folder / shard
        if not path.is_file():
            raise ModelError(f"{path} is missing, though {index.name} names it", hint=_HINT)
        weights.update(map_file(path))
    for name, shard in places.items():
        if name not in weights:
            raise ModelError(f"{folder / shard} has no tensor {name}, though {index.name} says so", hint=_HINT)
    return weights


def map_file(path: Path) -> Mapping[str, Weight]:
    """Map one file. Every size, offset and type in its header is checked before it is believed.

    Raises:
        ModelError: the file is damaged, or cannot be mapped.
    """
    header, start = read_header(path)
    size = path.stat().st_size
    with path.open("rb") as opened:
        # For reading only: Windows sets memory aside for all of a mapping that could be written to.
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


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Read a file's header; return it and the offset at which the data starts.

    Raises:
        ModelError: it is not a safetensors file, or its header is damaged.
    """
    size = path.stat().st_size
    if size < 8:
        raise ModelError(f"{path} is truncated: {size} bytes are no safetensors file", hint=_HINT)
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise ModelError(f"{path} is damaged: a header of {length} bytes in a file of {size}", hint=_HINT)
        return _json(path, opened.read(length)), 8 + length


_Span = tuple[str, tuple[int, ...], int, int]


def _span(path: Path, name: str, entry: Any, available: int) -> _Span:
    """The type, shape and byte range of one tensor."""
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
    if stored is None:  # types that no weight of the family has; Checkpoint says so if one is asked for
        return np.empty((0, *shape[1:]), np.uint8)
    flat: npt.NDArray[Any] = np.frombuffer(memory, stored, math.prod(shape), offset)
    return flat.reshape(shape)


def _json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}", hint=_HINT) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: its JSON is not an object", hint=_HINT)
    return value
