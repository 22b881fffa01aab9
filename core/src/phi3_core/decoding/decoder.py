"""Generate token ids with a runtime that has a forward pass and a KV cache, and no more than that."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phi3_core.values import GenerationRequest

from .answer import Answer
from .chunks import Chunks, chunks

Logits = npt.NDArray[Any]


class Forward(Protocol):
    """A model with a KV cache of one sequence."""

    def advance(self, ids: Sequence[int], rows: int) -> Logits:
        """Append ``ids`` to the cache, and return the logits after each of the last ``rows`` of them.

        Returns:
            Shape ``[rows, vocabulary]``. It is read before the next call.
        """
        ...

    def rewind(self, length: int) -> None:
        """Remove all but the first ``length`` tokens from the cache. 0 must work after a call that failed, too."""
        ...


class Decoder:
    """Generates one answer after the other, and keeps what the next prompt has in common with the last one.

    A prompt is read in chunks, and whole chunks are kept. From the first different one on, a prompt is read as without
    a cache, an earlier answer included: kernels round differently for other numbers of rows, and an answer must not
    depend on those before.

    Args:
        forward: the model.
        plan: divides a prompt into chunks; by default of 512 tokens.
        keeps: whether chunks are kept for the next prompt.
        proposals: the largest number of tokens that prompt lookup proposes at a time; 0 for an engine without it.
        short: the longest sequence that is read with LongRoPE's short factors. Those that become longer are read again,
            with the long ones; ``plan`` then has a first chunk that exceeds this length.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        plan: Callable[[Sequence[int]], Chunks] = lambda ids: chunks(ids, 512),
        keeps: bool = True,
        proposals: int = 0,
        short: int | None = None,
    ) -> None:
        self._forward = forward
        self._plan = plan
        self._keeps = keeps
        self._proposals = proposals
        self._short = math.inf if short is None else short
        self._kept: Chunks = []
        """The chunks that the cache begins with."""

    def generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        """Yield the ids of an answer, each as soon as it exists. It ends before a stop id, or at the limit.

        Raises whatever the model raises. The cache is not used again then.
        """
        try:
            yield from self._generate(request)
        except Exception:
            self._kept = []
            raise

    def _generate(self, request: GenerationRequest) -> Generator[int, None, None]:
        answer = Answer(request, proposals=self._proposals)
        rows = self._prefill(answer.ids)
        while True:
            yield from answer.append(rows)
            if answer.ended:
                return
            if answer.rejected:
                self._forward.rewind(len(answer.ids) - 1)
            length = len(answer.ids)
            if length - 1 == self._short:
                answer.following(proposes=False)
                rows = self._prefill(answer.ids)
                continue
            following = answer.following(longest=self._short if length <= self._short else math.inf)
            rows = self._forward.advance(following, len(following))

    def read_ahead(self, ids: Sequence[int]) -> Generator[None, None, None]:
        """Read the whole chunks of a prompt and its answer, with which the next prompt may begin, one each step.

        Nothing is read if that would need LongRoPE's other factors. It may be left after any step.

        Raises whatever the model raises.
        """
        plan = self._plan(ids)[:-1]
        same = self._same(plan)
        if same < len(plan) and (same or len(ids) <= self._short):
            for _ in self._read(plan, same):
                yield

    def logits(self, ids: Sequence[int]) -> Logits:
        """Return the logits after every id, ``[ids, vocabulary]``, for which the cache is emptied."""
        self.forget()
        return np.concatenate([self._forward.advance(chunk, len(chunk)).copy() for chunk in self._plan(ids)])

    def forget(self) -> None:
        """Empty the cache."""
        self._kept = []
        self._forward.rewind(0)

    def _prefill(self, ids: Sequence[int]) -> Logits:
        """Read a prompt, and return the logits after its last token, ``[1, vocabulary]``."""
        plan = self._plan(ids)
        # The last chunk is always read, for its logits.
        (rows,) = deque(self._read(plan, min(self._same(plan), len(plan) - 1)), maxlen=1)
        if not self._keeps:
            self._kept = []
        return rows

    def _same(self, plan: Chunks) -> int:
        """Return the number of chunks with which ``plan`` begins that are in the cache."""
        pairs = zip(plan, self._kept, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _read(self, plan: Chunks, same: int) -> Generator[Logits, None, None]:
        """Read the chunks of ``plan`` after the first ``same``, which are in the cache, one each step."""
        self._kept = plan[:same]
        self._forward.rewind(sum(map(len, self._kept)))
        for chunk in plan[same:]:
            kept, self._kept = self._kept, []  # if this fails
            rows = self._forward.advance(chunk, 1)
            self._kept = [*kept, chunk]
            yield rows
