"""The header of a safetensors file, without numpy: the types, shapes and byte ranges of its tensors.

A file consists of the header's length (8 bytes, little endian), the header in JSON, and the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from phi3_core.errors import ModelError

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


def _other_format(path: Path) -> str | None:
    """Return what a file is that is not a safetensors file, if its first bytes tell."""
    with path.open("rb") as opened:
        start = opened.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as an error of a server"
    if start.startswith((b"pk\3\4", b"\x80\2")):
        return "it is a pickle of PyTorch under another name"
    return "it is a GGUF file under another name" if start.startswith(b"gguf") else None
