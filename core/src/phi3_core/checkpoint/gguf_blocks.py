"""The values of GGUF's tensors in float32, block by block.

Q4_0, Q5_0 and Q8_0 have blocks of 32 weights with a scale; Q4_1 and Q5_1 add an offset. Q4_K and Q5_K have blocks of
256, divided into eight groups whose scales and offsets are 6-bit multiples of two numbers of the block; Q6_K has 16
groups with 8-bit multiples. Products and sums are computed in the order of ggml, so that the results are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .gguf_types import TYPES
from .safetensors import Grid

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_HALF = np.dtype("<f2")
_PAIR = np.array([0, 4], np.uint8)
"""Shifts to the low and the high half of a byte."""
_GRIDS = {"Q4_0": Grid(bits=4, group_size=32), "Q8_0": Grid(bits=8, group_size=32)}
_FIELDS = np.array([0, 2, 4, 6], np.uint8)


def values_of(kind: int, rows: Bytes) -> Floats:
    """Return the values of some rows of a tensor, ``[rows, columns]``.

    Args:
        kind: the number of the tensor's type, which has to be one of those that are read.
        rows: the bytes of whole rows, ``[rows, bytes]``.
    """
    known = TYPES[kind]
    if known.name in {"F32", "F16", "BF16"}:
        return _plain(known.name, rows)
    blocks = rows.reshape(-1, known.size)
    values = _DEQUANTIZERS[known.name](blocks)
    return values.reshape(len(rows), -1)


def grid_of(kind: int) -> Grid | None:
    """Return the grid that the values of a type lie on, or None."""
    return _GRIDS.get(TYPES[kind].name)


def on_grid(kind: int, rows: Bytes) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Return the integers, ``[rows, columns]``, and the scales, ``[rows, blocks]``, of a type with a grid."""
    known = TYPES[kind]
    blocks = rows.reshape(-1, known.size)
    scales: npt.NDArray[np.float16] = np.ascontiguousarray(blocks[:, :2]).view(_HALF)
    if known.name == "Q4_0":
        integers = _nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)
    else:
        integers = np.ascontiguousarray(blocks[:, 2:]).view(np.int8)
    return integers.reshape(len(rows), -1), scales.reshape(len(rows), -1)


def _plain(name: str, rows: Bytes) -> Floats:
    if name == "BF16":  # the upper 16 bits of a float32
        bits = np.ascontiguousarray(rows).view("<u2").astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    whole = np.ascontiguousarray(rows)
    values: Floats = whole.view(_HALF if name == "F16" else np.dtype("<f4")).astype(np.float32)
    return values


def _halves(blocks: Bytes, start: int) -> Floats:
    """Return the float16 number at a place of each block, ``[blocks, 1]``."""
    values: Floats = np.ascontiguousarray(blocks[:, start : start + 2]).view(_HALF).astype(np.float32)
    return values


def _nibbles(packed: Bytes) -> Bytes:
    """Unpack ``[blocks, n]`` bytes to ``[blocks, 2 n]``: all low halves, then all high ones."""
    halves: Bytes = (packed[:, None, :] >> _PAIR[:, None]) & np.uint8(15)
    return halves.reshape(len(packed), -1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """Return the bits of ``[blocks, 4]`` bytes in the order of the weights, each times 16."""
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    bits <<= 4
    return bits


def _q4_0(blocks: Bytes) -> Floats:
    values: Floats = (_nibbles(blocks[:, 2:]).view(np.int8) - np.int8(8)).astype(np.float32)
    values *= _halves(blocks, 0)
    return values


def _q4_1(blocks: Bytes) -> Floats:
    values: Floats = _nibbles(blocks[:, 4:]).astype(np.float32)
    values *= _halves(blocks, 0)
    values += _halves(blocks, 2)
    return values


def _q5_0(blocks: Bytes) -> Floats:
    integers = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])
    values: Floats = (integers.view(np.int8) - np.int8(16)).astype(np.float32)
    values *= _halves(blocks, 0)
    return values


def _q5_1(blocks: Bytes) -> Floats:
    integers = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])
    values: Floats = integers.astype(np.float32)
    values *= _halves(blocks, 0)
    values += _halves(blocks, 2)
    return values


def _q8_0(blocks: Bytes) -> Floats:
    values: Floats = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    values *= _halves(blocks, 0)
    return values


def _six_bits(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Return the scales and the offsets, each ``[blocks, 8]``, of which ``[blocks, 12]`` bytes have 6 bits each.

    The low six bits of the first eight bytes are the first four scales and offsets. The last four have their low halves
    in the last four bytes, and their upper two bits in those of the first eight.
    """
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (rest & 15) | ((low >> 6) << 4)], axis=1)
    offsets = np.concatenate([high & 63, (rest >> 4) | ((high >> 6) << 4)], axis=1)
    return scales, offsets


def _with_groups(blocks: Bytes, integers: Bytes) -> Floats:
    """Return the values of Q4_K or Q5_K, whose blocks begin alike, from their integers, ``[blocks, 8, 32]``."""
    scales, offsets = _six_bits(blocks[:, 4:16])
    scaled = _halves(blocks, 0) * scales.astype(np.float32)
    shifts = _halves(blocks, 2) * offsets.astype(np.float32)
    values: Floats = integers.astype(np.float32)
    values *= scaled[..., None]
    values -= shifts[..., None]
    return values


def _q4_k(blocks: Bytes) -> Floats:
    packed = blocks[:, 16:].reshape(-1, 4, 1, 32)
    integers = ((packed >> _PAIR[:, None]) & np.uint8(15)).reshape(-1, 8, 32)
    return _with_groups(blocks, integers)


def _q5_k(blocks: Bytes) -> Floats:
    packed = blocks[:, 48:].reshape(-1, 4, 1, 32)
    integers = ((packed >> _PAIR[:, None]) & np.uint8(15)).reshape(-1, 8, 32)
    # Bit n of byte i belongs to weight i of group n.
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    return _with_groups(blocks, integers | (fifth << 4))


def _q6_k(blocks: Bytes) -> Floats:
    # Each half of a block has 64 bytes of low halves for 128 weights, and 32 bytes of upper pairs of bits.
    low = blocks[:, :128].reshape(-1, 2, 1, 64)
    low = ((low >> _PAIR[:, None]) & np.uint8(15)).reshape(-1, 2, 4, 32)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> _FIELDS[:, None]) & np.uint8(3)
    integers = ((low | (high << 4)).view(np.int8) - np.int8(32)).reshape(-1, 16, 16)
    scales = _halves(blocks, 208) * np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    values: Floats = integers.astype(np.float32)
    values *= scales[..., None]
    return values


_DEQUANTIZERS: dict[str, Callable[[Bytes], Floats]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
