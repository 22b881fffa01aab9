"""GGUF files: what their metadata says, and where their tensors are."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from attrs import field, frozen

from phi3_core.disk import raise_if_full, reason
from phi3_core.errors import ModelError, StoreError

from . import gguf_parts
from .gguf_header import Tensor, read_header
from .gguf_types import TYPES

CONTROL, USER_DEFINED = 3, 4
"""Types of tokens in the metadata."""
_MOST_BITS_OF_INT4, _LEAST_BITS_OF_FP16 = 5.0, 12.0
"""Bits per weight, scales included: 4-bit types have 4.25 to 5, 5-bit ones at least 5.5."""
END_TOKENS = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens treated as stop tokens even if the metadata does not name them."""


@frozen(kw_only=True)
class GgufDescription:
    """The model of a GGUF file, as its metadata describes it."""

    architecture: str
    name: str
    context_length: int
    precision: str
    """``fp16``, ``int8`` or ``int4``: the smallest that holds the bits per weight of the most common tensor type."""
    chat_template: str | None
    stop_ids: tuple[int, ...]
    bos_id: int | None
    eos_id: int | None
    tokenizer: str = ""
    """The kind of the tokenizer and of the expression that splits text, such as ``gpt2/smollm``."""
    tensor_types: tuple[str, ...] = ()
    """Names of the types of the tensors, the one with most weights first."""
    parts: int = 1
    """Number of files."""


def check(path: Path) -> None:
    """Check that a GGUF file is complete and well-formed.

    Call this before a native GGUF reader opens the file: some abort the process on a damaged one.

    Raises:
        ModelError: the file is damaged or truncated.
    """
    Gguf.open(path)


def describe_gguf(path: Path) -> GgufDescription:
    """Return the description of the model in a GGUF file.

    Raises:
        ModelError: the file is damaged, or its format is not supported.
    """
    return Gguf.open(path).describe()


@frozen(kw_only=True)
class Gguf:
    """A complete GGUF file and the content of its header."""

    path: PurePath
    """The file's name, for messages; that of a file on the hub is ``OWNER/NAME/FILE``."""
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)

    parts: tuple[Path, ...] = ()
    """All files that it consists of, in order."""

    @classmethod
    def open(cls, path: Path) -> Gguf:
        """Read the header of a GGUF file, or of all of its parts if ``path`` is one of them.

        Raises:
            ModelError: a file is damaged or truncated, or a part is missing.
        """
        files = gguf_parts.parts(path)
        missing = [number for number, file in enumerate(files, 1) if not file.exists()] if len(files) > 1 else []
        if missing:
            others = f"parts {', '.join(map(str, missing))}" if missing[1:] else f"part {missing[0]}"
            raise ModelError(
                f"{files[missing[0] - 1]} is missing: the model is in {len(files)} parts",
                hint=f"download {others} too, into the same folder",
            )
        metadata, tensors = read_header(files[0])
        _check_part(files, 0, metadata)
        for index in range(1, len(files)):
            further, more = read_header(files[index])
            _check_part(files, index, further)
            if twice := tensors.keys() & more.keys():
                raise ModelError(f"{files[index]} has the tensor {min(twice)!r}, which another part has too")
            tensors |= more
        return cls(path=path, metadata=metadata, tensors=tensors, parts=tuple(files))

    @property
    def architecture(self) -> str:
        """The name of the architecture, which is also the first part of its keys."""
        return self.text("general.architecture")

    def number(self, key: str) -> int:
        """Return an integer from the metadata.

        Raises:
            ModelError: the key is missing or its value is not an integer.
        """
        value = self.metadata.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelError(f"{self.path} has no whole number {key!r} in its metadata")
        return value

    def text(self, key: str) -> str:
        """Return a string from the metadata.

        Raises:
            ModelError: the key is missing or its value is not a string.
        """
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise ModelError(f"{self.path} has no text {key!r} in its metadata")
        return value

    @property
    def tokens(self) -> Sequence[str]:
        """The vocabulary in the order of the token ids."""
        return self.texts("tokenizer.ggml.tokens")

    @property
    def token_types(self) -> Sequence[int]:
        """The type of each token."""
        value = self.metadata.get("tokenizer.ggml.token_type", ())
        return value if isinstance(value, array) else ()

    def token_id(self, role: str) -> int | None:
        """Return the id of the special token with a role such as ``bos``, ``eos`` or ``padding``, or None.

        Raises:
            ModelError: the id is outside the vocabulary.
        """
        key = f"tokenizer.ggml.{role}_token_id"
        if key not in self.metadata:
            return None
        given = self.number(key)
        if not 0 <= given < len(self.tokens):
            raise ModelError(f"{self.path} names token {given} as {key!r}, but has {len(self.tokens)} tokens")
        return given

    def describe(self) -> GgufDescription:
        """Return the description of the model.

        Raises:
            ModelError: the metadata is incomplete.
        """
        return GgufDescription(
            architecture=self.architecture,
            name=str(self.metadata.get("general.name") or self.path.stem),
            context_length=self.number(f"{self.architecture}.context_length"),
            precision=self._precision(),
            chat_template=self.text("tokenizer.chat_template") if "tokenizer.chat_template" in self.metadata else None,
            stop_ids=self.stop_ids,
            bos_id=self.token_id("bos"),
            eos_id=self.token_id("eos"),
            tokenizer="/".join(str(self.metadata.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre")),
            tensor_types=tuple(TYPES[kind].name for kind, _ in self._weights().most_common()),
            parts=len(self.parts),
        )

    def texts(self, key: str) -> Sequence[str]:
        """Return a list of strings from the metadata; empty if there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, list) else []

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids of the tokens that end an answer, those that the metadata names first."""
        marked = (CONTROL, USER_DEFINED)  # converters of early 2024 had all added tokens as user-defined
        control = {self.tokens[i]: i for i, kind in enumerate(self.token_types[: len(self.tokens)]) if kind in marked}
        found = [self.token_id(role) for role in ("eos", "eot", "eom")] + [control.get(name) for name in END_TOKENS]
        return tuple(dict.fromkeys(given for given in found if given is not None))

    def _weights(self) -> Counter[int]:
        """Return the number of weights of each tensor type."""
        totals: Counter[int] = Counter()
        for tensor in self.tensors.values():
            totals[tensor.type] += math.prod(tensor.shape)
        return totals

    def _precision(self) -> str:
        if not self.tensors:
            return "fp16"
        _, elements, size, _ = TYPES[self._weights().most_common(1)[0][0]]
        bits = 8 * size / elements
        return "int4" if bits <= _MOST_BITS_OF_INT4 else "int8" if bits < _LEAST_BITS_OF_FP16 else "fp16"


def _check_part(files: Sequence[Path], index: int, metadata: Mapping[str, Any]) -> None:
    """Check that a part is the one that its name says."""
    count, number = metadata.get("split.count") or 1, metadata.get("split.no", 0)
    if count != len(files):
        named = f"is one of {len(files)} by its name" if len(files) > 1 else "has not the name of one"
        raise ModelError(
            f"{files[index]} is one of {count} parts, but {named}",
            hint=f"name them as they were published: NAME-00001-of-{count:05}.gguf",
        )
    if count > 1 and number != index:
        raise ModelError(f"{files[index]} is part {number + 1} of {count}, not {index + 1}", hint="download it again")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as an indented JSON file."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Convert each ``OSError`` in the block into an error that names ``folder``.

    Raises:
        DiskFullError: the disk is full.
        StoreError: the folder cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        raise_if_full(error, folder)
        raise StoreError(f"{folder} cannot be written: {reason(error)}") from error
