"""A writer of ONNX files that encodes protocol buffers itself and does not depend on ``onnx``.

A message is a sequence of fields, each a tag (``number * 8 + wire type``) and a value: a varint (wire type 0), a length
and that many bytes (wire type 2) for text, raw data and nested messages, or four bytes (wire type 5) for a float.
Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import field, frozen

FLOAT, UINT8, INT32, INT64, FLOAT16 = 1, 2, 6, 7, 10
"""``TensorProto.DataType``."""
_KINDS = {np.dtype(kind): number for kind, number in (("<f4", FLOAT), ("u1", UINT8), ("<i4", INT32), ("<i8", INT64))}
_KINDS[np.dtype("<f2")] = FLOAT16
_AS_FLOAT, _AS_INT, _AS_STRING, _AS_TENSOR, _AS_GRAPH, _AS_INTS = 1, 2, 3, 4, 5, 7
"""``AttributeProto.AttributeType``."""
_EXTERNAL = 1
OPSET, CONTRIBUTED, IR_VERSION = 21, "com.microsoft", 10

Attribute: TypeAlias = "int | float | str | Sequence[int] | npt.NDArray[np.generic] | Graph"


@frozen(kw_only=True)
class External:
    """The location of a tensor's data; offset and length are in bytes."""

    file: str
    offset: int
    length: int


@frozen(kw_only=True)
class Tensor:
    """An initializer with external data."""

    name: str
    kind: int
    dims: tuple[int, ...]
    data: External


@frozen(kw_only=True)
class Value:
    """An input or output of a graph; dimensions with a name are dynamic."""

    name: str
    kind: int
    dims: tuple[int | str, ...]


@frozen(kw_only=True)
class Node:
    """A node of a graph."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str = ""
    domain: str = ""
    attributes: Mapping[str, Attribute] = field(factory=dict)


@frozen(kw_only=True)
class Graph:
    """A graph, or a branch of an If node."""

    name: str
    nodes: Sequence[Node]
    inputs: Sequence[Value] = ()
    outputs: Sequence[Value]
    tensors: Sequence[Tensor] = ()


def write_model(graph: Graph, producer: str, version: str) -> bytes:
    """Return the encoded ``ModelProto`` of a graph.

    Args:
        graph: the graph.
        producer: the name of the tool that built it.
        version: the version of the tool.
    """
    opsets = (("", OPSET), (CONTRIBUTED, 1))
    return b"".join(
        (
            _number(1, IR_VERSION),
            _text(2, producer),
            _text(3, version),
            _nested(7, _graph(graph)),
            *(_nested(8, _text(1, domain) + _number(2, number)) for domain, number in opsets),
        )
    )


def _graph(graph: Graph) -> bytes:
    return b"".join(
        (
            *(_nested(1, _node(node)) for node in graph.nodes),
            _text(2, graph.name),
            *(_nested(5, _external(tensor)) for tensor in graph.tensors),
            *(_nested(11, _value(value)) for value in graph.inputs),
            *(_nested(12, _value(value)) for value in graph.outputs),
        )
    )


def _node(node: Node) -> bytes:
    return b"".join(
        (
            *(_text(1, name) for name in node.inputs),
            *(_text(2, name) for name in node.outputs),
            _text(3, node.name),
            _text(4, node.operator),
            *(_nested(5, _attribute(name, given)) for name, given in node.attributes.items()),
            _text(7, node.domain),
        )
    )


def _attribute(name: str, given: Attribute) -> bytes:
    head = _text(1, name)
    if isinstance(given, float):
        return head + _tag(2, 5) + struct.pack("<f", given) + _number(20, _AS_FLOAT)
    if isinstance(given, int):
        return head + _number(3, given) + _number(20, _AS_INT)
    if isinstance(given, str):
        return head + _text(4, given) + _number(20, _AS_STRING)
    if isinstance(given, Graph):
        return head + _nested(6, _graph(given)) + _number(20, _AS_GRAPH)
    if isinstance(given, np.ndarray):
        return head + _nested(5, _inline(given)) + _number(20, _AS_TENSOR)
    return head + b"".join(_number(8, item) for item in given) + _number(20, _AS_INTS)


def _inline(values: npt.NDArray[np.generic]) -> bytes:
    return _dims(values.shape) + _number(2, _KINDS[values.dtype]) + _nested(9, values.tobytes())


def _external(tensor: Tensor) -> bytes:
    data = {"location": tensor.data.file, "offset": str(tensor.data.offset), "length": str(tensor.data.length)}
    return b"".join(
        (
            _dims(tensor.dims),
            _number(2, tensor.kind),
            _text(8, tensor.name),
            *(_nested(13, _text(1, key) + _text(2, text)) for key, text in data.items()),
            _number(14, _EXTERNAL),
        )
    )


def _value(value: Value) -> bytes:
    dims = (_text(2, dim) if isinstance(dim, str) else _number(1, dim) for dim in value.dims)
    shape = b"".join(_nested(1, dim) for dim in dims)
    return _text(1, value.name) + _nested(2, _nested(1, _number(1, value.kind) + _nested(2, shape)))


def _dims(dims: Iterable[int]) -> bytes:
    return b"".join(_number(1, dim) for dim in dims)


def _number(number: int, value: int) -> bytes:
    """Encode an integer field; negative values are 64 bits in two's complement."""
    return _tag(number, 0) + _varint(value & (1 << 64) - 1)


def _text(number: int, text: str) -> bytes:
    return _nested(number, text.encode())


def _nested(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    """Encode an integer in groups of 7 bits, the lowest first; the high bit of a byte means that more follow."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
