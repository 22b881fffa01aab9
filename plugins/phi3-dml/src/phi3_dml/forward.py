"""The forward pass of a generator of onnxruntime-genai that can be rewound, for phi3-core's decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from phi3_core.errors import BackendError

Logits = np.ndarray[Any, np.dtype[np.float32]]


class GeneratorForward:
    """The KV cache of one sequence, allocated by :meth:`reserve` for the length that a request needs.

    Args:
        make: returns a generator for a number of tokens.
        vocabulary: the number of logits of a token.
    """

    def __init__(self, make: Callable[[int], Any], vocabulary: int) -> None:
        self._make = make
        self._vocabulary = vocabulary
        self._generator: Any = None
        self.capacity = 0
        """Tokens for which there is room."""

    def reserve(self, tokens: int) -> None:
        """Make an empty cache for this number of tokens, in place of the one that is there."""
        self.drop()
        self._generator = self._make(tokens)
        self.capacity = tokens

    def drop(self) -> None:
        """Free the cache."""
        self._generator, self.capacity = None, 0

    def advance(self, ids: Sequence[int], rows: int) -> Logits:
        """Append ``ids`` to the cache, and return the logits after each of the last ``rows`` of them.

        Returns:
            Shape ``[rows, vocabulary]``.

        Raises:
            BackendError: ONNX Runtime failed, or the graph has logits of the last token only. The cache is gone then.
        """
        try:
            append(self._generator, ids)
            if rows == 1:
                last: Logits = self._generator.get_logits().reshape(-1, self._vocabulary)[-1:]
                return last
            found: Logits = np.asarray(self._generator.get_output("logits"))[0]
        except RuntimeError as error:
            self.drop()
            raise BackendError(line(error)) from error
        if len(found) != len(ids):
            self.drop()
            raise BackendError(f"the graph gives {len(found)} rows of logits for {len(ids)} tokens")
        return found[-rows:].astype(np.float32, copy=False)

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the cache.

        Raises:
            BackendError: ONNX Runtime failed. The cache is gone then.
        """
        if self._generator is None:
            return
        try:
            self._generator.rewind_to(length)
        except RuntimeError as error:
            self.drop()
            raise BackendError(line(error)) from error


def append(generator: Any, ids: Sequence[int]) -> None:
    """Append ids to the KV cache of a generator."""
    generator.append_tokens(np.array(ids, np.int32))


def line(error: BaseException) -> str:
    """Return an error message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
