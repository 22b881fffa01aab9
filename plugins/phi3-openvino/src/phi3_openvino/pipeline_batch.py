"""Answers that OpenVINO GenAI's pipeline makes together, on devices other than CPUs."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai
from phi3_core.errors import BackendError
from phi3_core.values import GenerationRequest

from .configuration import configuration

_RUNNING = openvino_genai.GenerationStatus.RUNNING
_FINISHED = openvino_genai.GenerationStatus.FINISHED


class PipelineAnswer:
    """An answer that the pipeline makes."""

    def __init__(self, request: GenerationRequest, blocks: int) -> None:
        self.tokens: list[int] = []
        """New ones, which the reader takes out."""
        self.ended = False
        self.failure = None
        """Only the whole pipeline fails."""
        self.blocks = blocks
        """Blocks that it may need."""
        self.stop_ids = frozenset(request.stop_ids)
        self.left = request.max_new_tokens
        self.handle: Any = None


class PipelineBatch:
    """Makes answers with a ``ContinuousBatchingPipeline``. Its methods are called by one thread at a time.

    Args:
        pipeline: the pipeline, with a prefix cache.
        block: tokens in a block of its KV cache.
        blocks: the size of its KV cache.
    """

    def __init__(self, pipeline: Any, *, block: int, blocks: int) -> None:
        self._pipeline = pipeline
        self._block = block
        self._free = blocks
        self._leaving = 0
        """Blocks of removed answers, which the next step frees."""
        self._answers: list[PipelineAnswer] = []
        self._numbers = itertools.count()

    def add(self, request: GenerationRequest) -> PipelineAnswer | None:
        """Return the answer to a request, which the next steps make; None if the cache has no room for all of it.

        Raises:
            RuntimeError: OpenVINO refuses the request.
        """
        # A request may begin in a copy of a kept block, which needs one more.
        answer = PipelineAnswer(request, -(-(len(request.prompt_ids) + request.max_new_tokens) // self._block) + 1)
        if answer.blocks > self._free:
            return None
        ids = openvino.Tensor(np.array([request.prompt_ids], dtype=np.int64))
        answer.handle = self._pipeline.add_request(next(self._numbers), ids, configuration(request))
        self._free -= answer.blocks
        self._answers.append(answer)
        return answer

    def remove(self, answer: PipelineAnswer) -> None:
        """Forget an answer, whether it has ended or not."""
        self._answers.remove(answer)
        self._leaving += answer.blocks
        if not answer.ended:
            answer.handle.cancel()
        answer.handle = None
        if not self._answers:
            with contextlib.suppress(RuntimeError):  # a later step fails, too
                self._run()

    def step(self) -> None:
        """Go on with every answer.

        Raises:
            BackendError: there is no room for an answer.
            RuntimeError: OpenVINO failed.
        """
        time.sleep(0)  # the pipeline holds the GIL during a step: others may have it before
        self._run()
        for answer in self._answers:
            if not answer.ended:
                self._take(answer)

    def _run(self) -> None:
        leaving, self._leaving = self._leaving, 0
        self._pipeline.step()
        self._free += leaving

    def _take(self, answer: PipelineAnswer) -> None:
        got = False
        while answer.handle.can_read():
            for output in answer.handle.read().values():
                for token in output.generated_ids:
                    if token in answer.stop_ids:
                        answer.ended = True
                        return
                    got = True
                    answer.left -= 1
                    answer.tokens.append(token)
        if answer.left == 0:
            answer.ended = True
        elif not got and (status := answer.handle.get_status()) != _RUNNING:
            if status != _FINISHED:
                raise BackendError("the KV cache has no room for a request")
            answer.ended = True
