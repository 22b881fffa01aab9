"""A reader of ONNX files for checks before ONNX Runtime opens them: external data files, types and operators.

It reads the wire format that ``writer.py`` describes from a memory-mapped file, skips unneeded fields, and checks all
lengths before it uses them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field
from phi3_core.errors import ModelError

_BITS = {2: 8, 3: 8, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 25: 2, 26: 2}
"""Bits of a value by ``TensorProto.DataType``, of the types of quantized weights."""
_PACKED = {"MatMulNBits": 4, "MatMulBnb4": 4}
"""Operators whose weights are packed bytes, and their default number of bits."""
_LOOKUPS = {"GatherBlockQuantized"}
"""Operators whose quantized tensors are embeddings."""
_DEEPEST = 8
"""Deepest nesting of graphs; a Loop or If in a Phi-3 graph is one level."""
_HINT = "fetch it again, or use another model"


@define(kw_only=True)
class Content:
    """The content of an ONNX file, as far as it is needed."""

    external: dict[str, int] = field(factory=dict)
    """Names of external data files, and the offset in bytes at which the last tensor in each ends."""
    bits: dict[int, int] = field(factory=dict)
    """Number of quantized weights of matrix products by bits, packed in nodes such as ``MatMulNBits`` or in tensors."""
    windows: dict[int, int] = field(factory=dict)
    """Number of ``GroupQueryAttention`` nodes by the size of their sliding window; -1 without one."""
    kinds: dict[int, int] = field(factory=dict)
    """Number of values in tensors of at least two dimensions by ``TensorProto.DataType``."""
    inputs: dict[str, int] = field(factory=dict)
    """The ``TensorProto.DataType`` of each input."""
    operators: set[str] = field(factory=set)
    """``domain:type`` of every node."""


def read(path: Path) -> Content:
    """Return the content of an ONNX model file.

    Raises:
        ModelError: the file is missing, damaged or not an ONNX model.
    """
    content = Content()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            _Reader(memory, content).model(0, len(memory))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (ValueError, IndexError, OSError) as error:
        raise ModelError(f"{path} is damaged: {error or 'it ends too early'}", hint=_HINT) from error
    if not content.operators:
        raise ModelError(f"{path} is no ONNX model: it has no nodes", hint=_HINT)
    return content


class _Reader:
    def __init__(self, memory: mmap.mmap, content: Content) -> None:
        self.memory, self.content = memory, content
        self._quantized: list[tuple[str, int, int]] = []
        """Name, bits and number of values of each tensor of a quantized type."""
        self._counted: set[str] = set()
        """Names of tensors that are counted by the nodes that use them, or are not weights of products."""

    def model(self, start: int, stop: int) -> None:
        """Read the fields of a ``ModelProto``."""
        for number, value in self._fields(start, stop):
            if number == 7 and isinstance(value, tuple):
                self._graph(*value, 0)
            elif number in {20, 25}:
                raise ValueError("it brings functions or training, which no model of the family does")
        for name, bits, values in self._quantized:
            if name not in self._counted:
                self.content.bits[bits] = self.content.bits.get(bits, 0) + values

    def _graph(self, start: int, stop: int, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("graphs are nested too deeply")
        for number, value in self._fields(start, stop):
            if not isinstance(value, tuple):
                continue
            if number == 1:
                self._node(*value, depth)
            elif number == 5:
                self._tensor(*value)
            elif number == 11 and depth == 0:
                self._input(*value)
            elif number == 15:  # a sparse tensor: its values and indices
                for inner, part in self._fields(*value):
                    if inner in {1, 2} and isinstance(part, tuple):
                        self._tensor(*part)

    def _input(self, start: int, stop: int) -> None:
        name, kind = "", 0
        for number, value in self._fields(start, stop):
            if number == 1 and isinstance(value, tuple):
                name = self._text(value)
            elif number == 2 and isinstance(value, tuple):
                for inner, part in self._fields(*value):
                    if inner == 1 and isinstance(part, tuple):
                        kind = next((got for key, got in self._fields(*part) if key == 1 and isinstance(got, int)), 0)
        self.content.inputs[name] = kind

    def _node(self, start: int, stop: int, depth: int) -> None:
        operator, domain, numbers = "", "", {}
        inputs: list[str] = []
        for number, value in self._fields(start, stop):
            if isinstance(value, int):
                continue
            if number == 1:
                inputs.append(self._text(value))
            elif number == 4:
                operator = self._text(value)
            elif number == 7:
                domain = self._text(value)
            elif number == 5:
                name, given = self._attribute(*value, depth)
                if given is not None:
                    numbers[name] = given
        self.content.operators.add(f"{domain}:{operator}")
        self._count(operator, inputs, numbers)

    def _count(self, operator: str, inputs: Sequence[str], numbers: Mapping[str, int]) -> None:
        if operator in _PACKED:
            bits = numbers.get("bits", _PACKED[operator])
            self.content.bits[bits] = self.content.bits.get(bits, 0) + numbers.get("K", 0) * numbers.get("N", 0)
        if operator in _PACKED or operator in _LOOKUPS:
            self._counted.update(inputs)
        if operator == "GroupQueryAttention":
            window = numbers.get("local_window_size", -1)
            window = -1 if window >= 1 << 63 else window  # a negative number
            self.content.windows[window] = self.content.windows.get(window, 0) + 1

    def _attribute(self, start: int, stop: int, depth: int) -> tuple[str, int | None]:
        name, given = "", None
        for number, value in self._fields(start, stop):
            if number == 3 and isinstance(value, int):
                given = value
            elif isinstance(value, tuple):
                if number == 1:
                    name = self._text(value)
                elif number in {5, 10}:
                    self._tensor(*value)
                elif number in {6, 11}:
                    self._graph(*value, depth + 1)
        return name, given

    def _tensor(self, start: int, stop: int) -> None:
        dims, kind, name = [], 0, ""
        where: dict[str, str] = {}
        for number, value in self._fields(start, stop):
            if isinstance(value, int):
                if number == 1:
                    dims.append(value)
                elif number == 2:
                    kind = value
            elif number == 1:  # packed
                dims += list(self._packed(*value))
            elif number == 8:
                name = self._text(value)
            elif number == 13:
                entry = {inner: self._text(part) for inner, part in self._fields(*value) if isinstance(part, tuple)}
                where[entry.get(1, "")] = entry.get(2, "")
        if len(dims) > 1:
            self._keep(name, kind, math.prod(dims))
        if where:
            self._refer(where)

    def _keep(self, name: str, kind: int, values: int) -> None:
        self.content.kinds[kind] = self.content.kinds.get(kind, 0) + values
        if kind in _BITS:
            self._quantized.append((name, _BITS[kind], values))

    def _refer(self, where: Mapping[str, str]) -> None:
        offset, length = where.get("offset", "0"), where.get("length", "0")
        if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in (offset, length)):
            raise ValueError("a tensor does not say where it lies")
        file = where.get("location", "")
        self.content.external[file] = max(self.content.external.get(file, 0), int(offset) + int(length))

    def _fields(self, start: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
        """Yield the number and the value of each field: an integer, or the start and end of its bytes."""
        place = start
        while place < stop:
            tag, place = self._varint(place, stop)
            wire = tag & 7
            if wire == 0:
                value, place = self._varint(place, stop)
                yield tag >> 3, value
                continue
            if wire == 2:
                length, place = self._varint(place, stop)
            elif wire in {1, 5}:
                length = 8 if wire == 1 else 4
            else:
                raise ValueError("it is not made of fields")
            if length > stop - place:
                raise ValueError("it ends too early")
            yield tag >> 3, (place, place + length)
            place += length

    def _packed(self, start: int, stop: int) -> Iterator[int]:
        while start < stop:
            value, start = self._varint(start, stop)
            yield value

    def _varint(self, place: int, stop: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if place >= stop:
                raise ValueError("it ends too early")
            byte = self.memory[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, place
        raise ValueError("a number has no end")

    def _text(self, span: tuple[int, int]) -> str:
        return self.memory[span[0] : span[1]].decode("utf-8", "replace")
