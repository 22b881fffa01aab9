"""Calibration: measure which inputs of each linear layer matter by running the model on a text.

The reference forward pass uses the weights of one layer at a time. The result is an :class:`Importance` for each
linear layer, together some tens of megabytes for Phi-3-mini.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from attrs import field, frozen

from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.checkpoint.forward import affordable_tokens, hidden_states
from phi3_core.checkpoint.safetensors import Floats, Weight
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Progress

from .calibration_text import CALIBRATION_TEXT
from .importance import Importance, observe

logger = logging.getLogger("phi3_core")

LONGEST_PIECE = 512
"""Length in tokens of the sequences that a user's text is split into."""
MOST_TOKENS = 4096
"""Tokens of a user's text that are used."""


@frozen(kw_only=True, eq=False)
class Calibration:
    """The importance of the inputs of all linear layers."""

    by_name: Mapping[str, Importance] = field(repr=False)
    """The importance by the weight's name."""
    tokens: int
    """Tokens of the calibration text."""

    def of(self, weight: Weight) -> Importance:
        """Return the importance of a weight's inputs.

        Raises:
            ModelError: the calibration is of another model.
        """
        importance = self.by_name.get(weight.name)
        if importance is None or importance.moments.shape != (weight.shape[1],):
            raise ModelError(f"the calibration is of another model: it does not fit {weight.name}")
        return importance

    def save(self, path: Path) -> None:
        """Write the calibration to a ``.npz`` file, which is replaced only when the new one is complete."""
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        arrays: dict[str, Any] = {"tokens": np.int64(self.tokens)}
        for name, importance in self.by_name.items():
            arrays[f"{name}/moments"] = importance.moments
            if importance.directions is not None:
                arrays[f"{name}/directions"] = importance.directions.astype(np.float16)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        try:
            partial.replace(path)
        except PermissionError:  # on Windows, if another process has the existing file open
            partial.unlink()

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration that :meth:`save` wrote.

        Raises:
            ModelError: the file is damaged, or not a calibration.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            tokens = int(arrays.pop("tokens"))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path} is no calibration: {error}", hint="delete it; it is made again") from error
        for name, values in arrays.items():
            if values.ndim not in {1, 2} or values.dtype.kind != "f" or not np.isfinite(values).all():
                raise ModelError(f"{path} is damaged: {name} holds no numbers", hint="delete it")
        return cls(by_name=dict(_importances(arrays)), tokens=tokens)


def _importances(arrays: Mapping[str, npt.NDArray[Any]]) -> Iterator[tuple[str, Importance]]:
    for key, moments in arrays.items():
        name, _, kind = key.rpartition("/")
        if kind == "moments":
            directions = arrays.get(f"{name}/directions")
            if directions is not None:
                directions = directions.astype(np.float32)
            yield name, Importance(moments=moments.astype(np.float32), directions=directions)


def calibrate(
    checkpoint: Checkpoint, sequences: Sequence[Sequence[int]], *, progress: Progress | None = None
) -> Calibration:
    """Run the model on sequences of token ids and measure the inputs of each linear layer.

    Raises:
        ModelError: the inputs of a layer are not finite.
        UsageError: there are no tokens.
    """
    tokens = sum(len(sequence) for sequence in sequences)
    if not tokens:
        raise UsageError("a calibration needs some text")
    found: dict[str, Importance] = {}

    def look(weight: Weight, inputs: Floats) -> None:
        if not np.isfinite(inputs.sum(dtype=np.float64)):
            raise ModelError(f"{checkpoint.path} is damaged: the inputs of {weight.name} are not finite")
        found[weight.name] = observe(inputs)

    hidden_states(checkpoint, sequences, observe=look, progress=progress)
    return Calibration(by_name=found, tokens=tokens)


def calibration_ids(checkpoint: Checkpoint, text: str | None = None) -> list[list[int]]:
    """Return the token ids of ``text``, or of the built-in text, as sequences.

    Large models use only the beginning of each piece of the built-in text: the rest takes minutes and adds little.

    Raises:
        ModelError: the tokenizer cannot be read.
    """
    tokenizer = read_tokenizer(checkpoint.path)
    if text is None:
        most = affordable_tokens(checkpoint) // len(CALIBRATION_TEXT)
        return [tokenizer.encode(piece, add_special_tokens=False).ids[:most] for piece in CALIBRATION_TEXT]
    # No token has as many as 256 characters: what is behind those of all tokens is not encoded.
    ids = tokenizer.encode(text[: 256 * MOST_TOKENS], add_special_tokens=False).ids[:MOST_TOKENS]
    return [ids[start : start + LONGEST_PIECE] for start in range(0, len(ids), LONGEST_PIECE)]


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """Read ``tokenizer.json`` from a checkpoint folder.

    Raises:
        ModelError: the file is missing or damaged.
    """
    path = folder / "tokenizer.json"
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{path} cannot be read: {error}", hint="fetch the checkpoint again") from error


def calibration_for(
    checkpoint: Checkpoint, *, text: str | None = None, cache: Path | None = None, progress: Progress | None = None
) -> Calibration:
    """Return the calibration of a checkpoint, from the cache if possible.

    The cache key is a hash of the token ids, of ``config.json``, and of the sizes and modification times of the
    weight files.

    Args:
        checkpoint: the original weights.
        text: the calibration text; None for the built-in one.
        cache: the folder to keep the calibration in; None to keep none.
        progress: called as the work proceeds.

    Raises:
        ModelError: the checkpoint is damaged.
        UsageError: the text is empty.
    """
    sequences = calibration_ids(checkpoint, text)
    if cache is None:
        return calibrate(checkpoint, sequences, progress=progress)
    stored = cache / f"calibration-{_digest(checkpoint, sequences)}.npz"
    if stored.is_file():
        try:
            return Calibration.load(stored)
        except ModelError as error:
            logger.warning("%s; it is made again", error.message)
    calibration = calibrate(checkpoint, sequences, progress=progress)
    cache.mkdir(parents=True, exist_ok=True)
    calibration.save(stored)
    return calibration


def _digest(checkpoint: Checkpoint, sequences: Sequence[Sequence[int]]) -> str:
    digest = hashlib.sha256((checkpoint.path / "config.json").read_bytes())
    for file in sorted({weight.file for weight in (checkpoint.embedding, checkpoint.head, *checkpoint.linear)}):
        status = file.stat()
        digest.update(f"{file.name} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    digest.update(repr([list(sequence) for sequence in sequences]).encode())
    return digest.hexdigest()[:16]
