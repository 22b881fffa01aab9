"""The header of a safetensors file, without numpy: the types, shapes and byte ranges of its tensors.

A file consists of the header's length (8 bytes, little endian), the header in JSON, and the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from phi3_core.errors import ModelError

ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4}
ITEM_BYTES |= {"U64": 8, "I64": 8, "F64": 8}
"""Bytes per element, by the type's name in the header."""
Span = tuple[str, tuple[int, ...], int, int]
"""A tensor's type, its shape, and the first and last byte of its data, the last excluded."""
_METADATA = "__metadata__"
_LONGEST = 100_000_000
_HINT = "fetch the file again"


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a file and the offset in bytes at which the data starts.

    Raises:
        ModelError: the file is not a safetensors file, or its header is damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as opened:
        try:
            return read_header_of(opened, path.stat().st_size)
        except ValueError as error:
            raise ModelError(f"{path} is damaged: {_other_format(path) or error}", hint=_HINT) from error


def read_header_of(stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Return the header of a file that begins in ``stream``, and the offset in bytes at which the data starts.

    Args:
        stream: is read to the end of the header.
        size: the size of the file in bytes.

    Raises:
        ValueError: it is not the header of a safetensors file.
    """
    if size < 8:
        raise ValueError(f"{size} bytes are no safetensors file")
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(_LONGEST, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    return parse_object(stream.read(length)), 8 + length


def parse_object(content: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        ValueError: it is not JSON, not an object, or nested too deeply.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("its JSON is not an object")  # noqa: TRY004 - as damaged as any other
    return value


def read_spans(path: PurePath, header: Mapping[str, Any], available: int) -> dict[str, Span]:
    """Return the type, shape and byte range of each tensor after checking every size, offset and type in a header.

    Args:
        path: the file, for messages.
        header: its header.
        available: the size of its data in bytes.

    Raises:
        ModelError: the file is damaged.
    """
    spans = {name: _span(path, name, entry, available) for name, entry in header.items() if name != _METADATA}
    _check_apart(path, spans)
    return spans


def _span(path: PurePath, name: str, entry: Any, available: int) -> Span:
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


def _check_apart(path: PurePath, spans: Mapping[str, Span]) -> None:
    end = 0
    for name, (_, _, first, last) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if first < end:
            raise ModelError(f"{path} is damaged: tensor {name} overlaps another", hint=_HINT)
        end = last


def _other_format(path: Path) -> str | None:
    """Return what a file is that is not a safetensors file, if its first bytes tell."""
    with path.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as an error of a server"
    if start.startswith((b"pk\3\4", b"\x80\2")):
        return "it is a pickle of PyTorch under another name"
    return "it is a GGUF file under another name" if start.startswith(b"gguf") else None
