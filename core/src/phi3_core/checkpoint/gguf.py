"""GGUF files: metadata, tensor values, and the embedded tokenizer."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from phi3_core.disk import raise_if_full, reason
from phi3_core.errors import ModelError, StoreError

from .gguf_header import Tensor, gguf_package, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CONTROL, _USER_DEFINED = 3, 4
_END_TOKENS = ("<|end|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens treated as stop tokens even if the metadata does not name them."""


@frozen(kw_only=True)
class GgufDescription:
    """The model of a GGUF file, as its metadata describes it."""

    architecture: str
    name: str
    context_length: int
    precision: str
    """``fp16``, ``int8`` or ``int4``, whichever is nearest to the bits per weight of the most common tensor type."""
    chat_template: str | None
    stop_ids: tuple[int, ...]
    bos_id: int | None
    eos_id: int | None


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


def write_tokenizer(path: Path, folder: Path) -> None:
    """Write the tokenizer of the GGUF file ``path`` into ``folder``; see :meth:`Gguf.write_tokenizer`."""
    Gguf.open(path).write_tokenizer(folder)


@frozen(kw_only=True)
class Gguf:
    """A complete GGUF file and the content of its header."""

    path: Path
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Gguf:
        """Read the header of a GGUF file.

        Raises:
            ModelError: the file is damaged or truncated.
        """
        metadata, tensors = read_header(path)
        return cls(path=path, metadata=metadata, tensors=tensors)

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
        return self._texts("tokenizer.ggml.tokens")

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
        architecture = self.text("general.architecture")
        return GgufDescription(
            architecture=architecture,
            name=str(self.metadata.get("general.name") or self.path.stem),
            context_length=self.number(f"{architecture}.context_length"),
            precision=self._precision(),
            chat_template=self.text("tokenizer.chat_template") if "tokenizer.chat_template" in self.metadata else None,
            stop_ids=self._stop_ids(),
            bos_id=self.token_id("bos"),
            eos_id=self.token_id("eos"),
        )

    def values(self, name: str) -> NDArray[np.float32]:
        """Return the values of a tensor in float32, dequantized if necessary.

        Raises:
            ModelError: the tensor cannot be read, or the ``gguf`` package is not installed.
        """
        with gguf_package():
            import numpy as np  # start-up, and part of an extra: reading a header does not need it
            from gguf import GGMLQuantizationType
            from gguf.quants import dequantize
        tensor = self.tensors[name]
        try:
            with self.path.open("rb") as file:
                file.seek(tensor.offset)
                raw = np.frombuffer(file.read(tensor.size), dtype=np.uint8)
            numbers = dequantize(raw.reshape(math.prod(tensor.shape[:-1]), -1), GGMLQuantizationType(tensor.type))
        except OSError as error:
            raise ModelError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except (ValueError, NotImplementedError) as error:
            raise ModelError(f"{self.path} has the tensor {name!r}, which cannot be read: {error}") from error
        return np.asarray(numbers, dtype=np.float32).reshape(tensor.shape)

    def write_tokenizer(self, folder: Path) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json``, with the same token ids.

        Raises:
            ModelError: the metadata is incomplete, or the tokenizer is of an unsupported type.
            StoreError: the folder cannot be written.
        """
        description = self.describe()
        names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
        ids = {role: given for role, name in names.items() if (given := self.token_id(name)) is not None}
        settings: dict[str, Any] = {
            # The original model's class would make transformers replace the pre-tokenizer with its own.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": description.context_length,
            **{f"{role}_token": self.tokens[given] for role, given in ids.items()},
        }
        if description.chat_template is not None:
            settings["chat_template"] = description.chat_template
        generation = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
        tokenizer = self._tokenizer()
        with writing(folder):
            (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8", newline="\n")
            write_json(folder / "tokenizer_config.json", settings)
            write_json(folder / "generation_config.json", {**generation, "eos_token_id": list(description.stop_ids)})

    def _tokenizer(self) -> str:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # start-up

        model, split = (self.text(f"tokenizer.ggml.{key}") for key in ("model", "pre"))
        if (model, split) != ("gpt2", "smollm"):
            raise ModelError(
                f"{self.path} has a tokenizer of an unknown kind: {model!r} with {split!r}",
                hint="use the model's Hugging Face checkpoint",
            )
        pairs = (merge.partition(" ") for merge in self._texts("tokenizer.ggml.merges"))
        merges = [(left, right) for left, _, right in pairs]
        vocabulary = {token: index for index, token in enumerate(self.tokens)}
        if not merges or not len(vocabulary) == len(self.tokens) == len(self._types):
            raise ModelError(
                f"{self.path} has a damaged tokenizer: no merges, or tokens that are alike or without a type"
            )
        try:
            tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        except Exception as error:  # the library raises plain Exception
            raise ModelError(f"{self.path} has a damaged tokenizer: {error}") from error
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tokenizer.decoder = decoders.ByteLevel()
        added = {
            token: kind
            for token, kind in zip(self.tokens, self._types, strict=True)
            if kind in (_CONTROL, _USER_DEFINED)
        }
        for token, kind in added.items():
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
        return str(tokenizer.to_str())

    def _texts(self, key: str) -> Sequence[str]:
        value = self.metadata.get(key)
        return value if isinstance(value, list) else []

    @property
    def _types(self) -> Sequence[int]:
        value = self.metadata.get("tokenizer.ggml.token_type", ())
        return value if isinstance(value, array) else ()

    def _stop_ids(self) -> tuple[int, ...]:
        control = {self.tokens[i]: i for i, kind in enumerate(self._types[: len(self.tokens)]) if kind == _CONTROL}
        found = [self.token_id(role) for role in ("eos", "eot", "eom")] + [control.get(name) for name in _END_TOKENS]
        return tuple(dict.fromkeys(given for given in found if given is not None))

    def _precision(self) -> str:
        totals: dict[int, list[int]] = {}
        for tensor in self.tensors.values():
            total = totals.setdefault(tensor.type, [0, 0])
            total[0] += math.prod(tensor.shape)
            total[1] += tensor.size * 8
        elements, bits = max(totals.values())
        return "int4" if bits < 6 * elements else "int8" if bits < 12 * elements else "fp16"


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
