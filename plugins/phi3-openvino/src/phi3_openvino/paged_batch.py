"""Answers that are made together on a CPU: each pass of the graph goes on with all of them.

The same seed has the same answer alone and among others. A row's bits do not depend on its company as long as there is
any, and OpenVINO quantizes the keys of a block's tokens together, so prompts are divided where blocks end. What an
answer has left in the cache differs from what reading it gives, so seeded requests do not share that.
See docs/decisions/0031.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_core.backend import Answer
from phi3_core.errors import UsageError
from phi3_core.values import GenerationRequest

from .blocks import Blocks, digest
from .paged import BLOCK, PagedGraph, Part

STEP = 512
"""Tokens that a pass appends at most; until it ends, nobody joins or is cancelled. See docs/decisions/0031."""
PROPOSALS = 8
"""Tokens that prompt lookup proposes at a time."""
_FEW = 2
"""Answers at once for which rows of proposals cost little. Among more, a pass costs about what its rows do."""


class PagedAnswer:
    """An answer, and where its keys and values are."""

    def __init__(self, request: GenerationRequest) -> None:
        self.tokens: list[int] = []
        """New ones, which the reader takes out."""
        self.ended = False
        self.failure: UsageError | None = None
        """Why it has ended, if it could not go on."""
        self.answer = Answer(request, proposals=PROPOSALS)
        self.prompt = len(request.prompt_ids)
        self.most = -(-(self.prompt + request.max_new_tokens) // BLOCK)
        """Blocks that it may need."""
        self.seeded = request.sampling.seed is not None and request.sampling.temperature > 0
        self.always_proposes = self.seeded or request.lookup == "on"
        """Whether prompt lookup does not depend on how many answers there are."""
        self.blocks: list[int] = []
        self.length = 0
        """Tokens in the cache."""
        self.only_read = True
        """Whether all that it shares was read as part of a prompt."""
        self._digests: list[bytes] = []

    @property
    def reads(self) -> bool:
        """Whether the prompt is not in the cache yet."""
        return self.length < self.prompt

    def digest(self, block: int) -> bytes:
        """Return the digest of the text up to the end of one of its blocks."""
        while len(self._digests) <= block:
            at = len(self._digests)
            before = self._digests[-1] if at else b""
            self._digests.append(digest(before, self.answer.ids[at * BLOCK : (at + 1) * BLOCK]))
        return self._digests[block]


class PagedBatch:
    """Makes answers with a graph. Its methods are called by one thread at a time.

    Args:
        graph: the IR's ``.xml`` file.
        properties: OpenVINO's properties.
        blocks: the size of the KV cache.

    Raises:
        RuntimeError: OpenVINO failed.
    """

    def __init__(self, graph: Path, properties: Mapping[str, Any], *, blocks: int) -> None:
        self._graph = PagedGraph(graph, properties, blocks=blocks)
        self._spare = 0
        self._graph.advance([Part((0,), 0, (self._spare,), 1)])  # packs the weights, as in forward.py
        self._blocks = Blocks(range(1, blocks))
        self._reserved = 0
        self._answers: list[PagedAnswer] = []

    def add(self, request: GenerationRequest) -> PagedAnswer | None:
        """Return the answer to a request, which the next steps make; None if the cache has no room for all of it."""
        answer = PagedAnswer(request)
        if self._reserved + answer.most > self._blocks.count:
            return None
        self._reserved += answer.most
        self._answers.append(answer)
        return answer

    def remove(self, answer: PagedAnswer) -> None:
        """Forget an answer, whether it has ended or not."""
        self._answers.remove(answer)
        self._reserved -= answer.most
        self._blocks.release(answer.blocks)

    def step(self) -> None:
        """Go on with every answer, as far as the pass has room for its prompt.

        Raises:
            RuntimeError: OpenVINO failed.
        """
        going_on = [answer for answer in self._answers if not answer.ended]
        parts: list[tuple[PagedAnswer, Sequence[int]]]
        few = len(going_on) <= _FEW
        parts = [
            (answer, answer.answer.following(proposes=few or answer.always_proposes))
            for answer in going_on
            if not answer.reads
        ]
        # Alone, greedy answers do without a second row, which costs time.
        spare = None if len(parts) == 1 and not parts[0][0].seeded else self._spare
        room = STEP - sum(len(ids) for _, ids in parts)
        for answer in going_on:
            if answer.reads:
                if not (ids := self._next_part(answer, room)):
                    break
                parts.append((answer, ids))
                room -= len(ids)
                spare = self._spare
        if not parts:
            return
        logits = self._graph.advance([self._part(answer, ids) for answer, ids in parts], spare=spare)
        at = 0
        for answer, ids in parts:
            rows = self._rows(answer, ids)
            self._take(answer, ids, logits[at : at + rows])
            at += rows

    def _next_part(self, answer: PagedAnswer, room: int) -> Sequence[int]:
        """Return the part of a prompt that is read next; nothing if there is no room.

        It ends where a block ends, or the prompt. One token alone is never left, because it has other kernels.
        """
        if not answer.length:
            self._share(answer)
        start, end = answer.length, answer.prompt
        if end - start > room:
            end = start + room
            end -= end % BLOCK
            if end == answer.prompt - 1:
                end -= BLOCK
        return answer.answer.ids[start:end]

    def _share(self, answer: PagedAnswer) -> None:
        """Begin with the blocks that are kept for the begin of a prompt, of which two tokens at least are read."""
        for at in range((answer.prompt - 2) // BLOCK):
            text = answer.digest(at)
            block = self._blocks.find((text, True)) if answer.only_read else None
            if block is None and not answer.seeded:
                block = self._blocks.find((text, False))
                answer.only_read = answer.only_read and block is None
            if block is None:
                break
            answer.blocks.append(block)
        answer.length = len(answer.blocks) * BLOCK

    def _part(self, answer: PagedAnswer, ids: Sequence[int]) -> Part:
        while len(answer.blocks) * BLOCK < answer.length + len(ids):
            answer.blocks.append(self._blocks.take())
        needed = -(-(answer.length + len(ids)) // BLOCK)
        return Part(ids, answer.length, answer.blocks[:needed], self._rows(answer, ids))

    @staticmethod
    def _rows(answer: PagedAnswer, ids: Sequence[int]) -> int:
        """Return after how many of a part's tokens logits are needed."""
        if not answer.reads:
            return len(ids)
        return int(answer.length + len(ids) == answer.prompt)

    def _take(self, answer: PagedAnswer, ids: Sequence[int], logits: Any) -> None:
        """Choose tokens from the logits, and keep the blocks that are full."""
        full, end = answer.length // BLOCK, answer.length + len(ids)
        if len(logits):
            try:
                answer.tokens += answer.answer.append(logits)
            except UsageError as error:  # of its JSON schema: the others go on
                answer.failure = error
            answer.ended = answer.answer.ended or answer.failure is not None
        # What was proposed and wrong is written over.
        answer.length = min(end, max(answer.prompt, len(answer.answer.ids) - 1))
        for at in range(full, answer.length // BLOCK):
            read = answer.only_read and (at + 1) * BLOCK <= answer.prompt
            self._blocks.keep(answer.blocks[at], (answer.digest(at), read))
