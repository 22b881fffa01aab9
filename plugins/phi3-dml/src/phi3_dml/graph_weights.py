"""Write weights to the graph's data file, rounded or in float16, in blocks of rows.

``MatMulNBits`` reads integers by output and group, 4-bit ones in pairs with the first in the low half of a byte, and a
scale and a zero point for each group (8 or 128 by default). Symmetric integers of core's rounding are signed; adding
the default zero point makes them unsigned.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from attrs import frozen
from phi3_core.backend import Floats, Rounded, RoundingPlan, Scheme, Weight, pack_nibbles, round_blocks, to_float16

from .onnx.writer import FLOAT, FLOAT16, UINT8, External, Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

_ALIGNMENT = 4096
"""Page size in bytes: ONNX Runtime maps tensors that begin on a page, and copies others into memory."""
_AT_ONCE = 1 << 22
_KINDS = {np.dtype("<f4"): FLOAT, np.dtype("<f2"): FLOAT16, np.dtype("u1"): UINT8}
Rows = tuple[int, int]
"""First row and end of a range of outputs."""


@frozen(kw_only=True)
class Matrix:
    """Names of the tensors of a linear layer, or of some of its outputs."""

    weight: str
    """Integers, ``[outputs, groups, bytes]``; without a ``scheme`` float16, ``[inputs, outputs]``."""
    scales: str = ""
    """Scales, ``[outputs, groups]``; empty without a ``scheme``."""
    zeros: str = ""
    """Zero points; empty for the default ones."""
    inputs: int
    outputs: int
    scheme: Scheme | None = None


class DataFile:
    """Writes the data file beside the graph without keeping tensors in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("w+b")
        self.tensors: list[Tensor] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def begin(self) -> int:
        """Pad the file to the alignment of tensors and return the offset of the next one in bytes."""
        end = self.file.seek(0, 2)
        self.file.write(b"\0" * (-end % _ALIGNMENT))
        return end + -end % _ALIGNMENT

    def write(self, values: npt.NDArray[Any]) -> None:
        """Append values to the file."""
        self.file.write(np.ascontiguousarray(values).data)

    def name(self, name: str, kind: int, dims: tuple[int, ...], offset: int, length: int) -> str:
        """Register a part of the file as a tensor and return its name.

        Args:
            name: the name of the tensor.
            kind: its ``TensorProto.DataType``.
            dims: its shape.
            offset: its offset in the file in bytes.
            length: its size in bytes.
        """
        data = External(file=self.path.name, offset=offset, length=length)
        self.tensors.append(Tensor(name=name, kind=kind, dims=dims, data=data))
        return name

    def add(self, name: str, values: npt.NDArray[Any]) -> str:
        """Write a tensor and return its name."""
        offset = self.begin()
        self.write(values)
        return self.name(name, _KINDS[values.dtype], values.shape, offset, values.nbytes)

    def space(self, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float16]:
        """Add a float16 tensor and return it as a memory map, to be filled in any order."""
        offset = self.begin()
        length = 2 * shape[0] * shape[1]
        self.file.truncate(offset + length)
        self.file.flush()
        self.name(name, FLOAT16, shape, offset, length)
        return np.memmap(self.path, np.float16, "r+", offset, shape)


class StoredWeights:
    """Writes weights that are rounded by a plan, and returns the names of their tensors."""

    def __init__(
        self,
        plan: RoundingPlan,
        data: DataFile,
        *,
        float16: bool,
        explicit_zeros: bool,
        stored: Callable[[Weight], None] | None = None,
    ) -> None:
        self.plan, self.data = plan, data
        self.kind: npt.DTypeLike = np.float16 if float16 else np.float32
        """The type of the graph's activations, and of scales, norms and rotary tables."""
        self.explicit_zeros = explicit_zeros
        """Whether default zero points are written too."""
        self.stored = stored
        """Called with each weight that has been written."""

    def matrices(self, weight: Weight, parts: Mapping[str, Rows]) -> list[Matrix]:
        """Write the weight of a linear layer.

        Args:
            weight: ``[outputs, inputs]``.
            parts: ranges of outputs that the graph uses separately, by name; see :func:`split` and :func:`whole`.

        Returns:
            The tensors of each part.

        Raises:
            ModelError: the weight has values that are not finite.
            UsageError: the group size does not divide the number of inputs.
        """
        scheme = self.plan.schemes.get(weight.name)
        found = self._halves(weight, parts) if scheme is None else self._rounded(weight, scheme, parts)
        if self.stored:
            self.stored(weight)
        return found

    def table(self, weight: Weight, name: str) -> str:
        """Write the embedding, ``[vocabulary, hidden]``, in float16 and return its name.

        Raises:
            ModelError: the weight has values that are not finite.
        """
        offset = self.data.begin()
        for rows in weight.blocks(_AT_ONCE):
            self.data.write(weight.float16(rows))
        if self.stored:
            self.stored(weight)
        return self.data.name(name, FLOAT16, weight.shape, offset, 2 * weight.raw.size)

    def norm(self, weight: Weight, following: Weight, name: str) -> str:
        """Write the weights of a norm, divided by the balance of the linear layer ``following`` it."""
        return self.floats(self.plan.norm(weight, following), name)

    def floats(self, values: Floats, name: str) -> str:
        """Write values in the graph's floating-point type and return the tensor's name."""
        return self.data.add(name, to_float16(values) if self.kind is np.float16 else values.astype(np.float32))

    def _halves(self, weight: Weight, parts: Mapping[str, Rows]) -> list[Matrix]:
        """Write a weight in float16, transposed for the right operand of MatMul."""
        matrices = []
        for name, (start, stop) in parts.items():
            place = self.data.space(f"{name}.weight", (weight.shape[1], stop - start))
            step = max(1, _AT_ONCE // weight.shape[1])
            for first in range(start, stop, step):
                rows = slice(first, min(first + step, stop))
                place[:, rows.start - start : rows.stop - start] = weight.float16(rows).T
            place.flush()  # type: ignore[attr-defined]
            matrices.append(Matrix(weight=f"{name}.weight", inputs=weight.shape[1], outputs=stop - start))
        return matrices

    def _rounded(self, weight: Weight, scheme: Scheme, parts: Mapping[str, Rows]) -> list[Matrix]:
        outputs, inputs = weight.shape
        groups = scheme.groups(inputs)
        importance, factors = self.plan.importance.get(weight.name), self.plan.factors.get(weight.name)
        scales = np.empty((outputs, groups), np.float16)
        zeros = np.full((outputs, groups), 1 << scheme.bits - 1, np.uint8)
        offset = self.data.begin()
        for rows, part in round_blocks(weight, scheme, importance, factors=factors, pack=True):
            self.data.write(_unsigned(part))
            scales[rows] = part.scales
            if part.zeros is not None:
                zeros[rows] = part.zeros
        bytes_a_group = inputs // groups * scheme.bits // 8
        scale_offset = self.data.begin()
        self.data.write(scales.astype(self.kind))
        scale_bytes = np.dtype(self.kind).itemsize * groups
        written = not scheme.symmetric or self.explicit_zeros
        packed = _packed_zeros(zeros, scheme.bits) if written else zeros[:0]
        zero_offset = self.data.begin()
        self.data.write(packed)
        kind = FLOAT16 if self.kind is np.float16 else FLOAT
        matrices = []
        for name, (start, stop) in parts.items():
            rows_here, each = stop - start, groups * bytes_a_group
            self.data.name(
                f"{name}.weight_Q{scheme.bits}",
                UINT8,
                (rows_here, groups, bytes_a_group),
                offset + start * each,
                rows_here * each,
            )
            self.data.name(
                f"{name}.weight_scales",
                kind,
                (rows_here, groups),
                scale_offset + start * scale_bytes,
                rows_here * scale_bytes,
            )
            if written:
                width = packed.shape[1]
                self.data.name(
                    f"{name}.weight_zeros",
                    UINT8,
                    (rows_here, width),
                    zero_offset + start * width,
                    rows_here * width,
                )
            matrices.append(
                Matrix(
                    weight=f"{name}.weight_Q{scheme.bits}",
                    scales=f"{name}.weight_scales",
                    zeros=f"{name}.weight_zeros" if written else "",
                    inputs=inputs,
                    outputs=rows_here,
                    scheme=scheme,
                )
            )
        return matrices


def _unsigned(part: Rounded) -> npt.NDArray[np.uint8]:
    """Return unsigned integers, ``[rows, bytes]``; flipping the sign bit adds half the range to signed ones."""
    values: npt.NDArray[np.uint8] = part.values.view(np.uint8)
    if part.scheme.symmetric:
        values ^= np.uint8(0x88 if part.scheme.bits == 4 else 0x80)
    return values


def _packed_zeros(zeros: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Return packed zero points, ``[rows, bytes]``; a row with an odd number of 4-bit ones is padded."""
    if bits == 8:
        return zeros
    if zeros.shape[1] % 2:
        zeros = np.concatenate([zeros, np.full((len(zeros), 1), 8, np.uint8)], axis=1)
    return pack_nibbles(zeros)


def stored_bytes(weight: Weight, scheme: Scheme | None, *, float16: bool, zeros: bool) -> int:
    """Return the size of a weight in the data file in bytes, without alignment.

    Args:
        weight: the weight.
        scheme: the scheme to round to; None for float16.
        float16: whether scales are float16 instead of float32.
        zeros: whether zero points are written.
    """
    outputs, inputs = weight.shape
    if scheme is None:
        return 2 * outputs * inputs
    groups = scheme.groups(inputs)
    each = (2 if float16 else 4) + (scheme.bits / 8 if zeros else 0)
    return round(outputs * (inputs * scheme.bits / 8 + groups * each))


def whole(name: str, weight: Weight) -> Mapping[str, Rows]:
    """Return the parts of a weight that the graph uses as one."""
    return {name: (0, weight.shape[0])}


def split(names: Sequence[str], sizes: Sequence[int]) -> Mapping[str, Rows]:
    """Return the parts of a weight that is divided into consecutive ranges of outputs.

    Args:
        names: the names of the parts.
        sizes: the number of outputs of each.
    """
    ends = np.cumsum(sizes)
    return {name: (int(end) - size, int(end)) for name, size, end in zip(names, sizes, ends, strict=True)}
