"""One answer: its tokens chosen from logits, where it ends, and the tokens that may come next."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from phi3_core.sampling import Sampler
from phi3_core.values import GenerationRequest

from .prompt_lookup import PromptLookup


class Answer:
    """What a request's answer is made of, besides the model's passes, for engines that run these themselves.

    After the pass that reads the prompt, :meth:`append` takes the logits after its last token. From then on each pass
    gets the tokens of :meth:`following`, and :meth:`append` the logits after each of them, until the answer has ended.

    Args:
        request: what to answer.
        proposals: the largest number of tokens that prompt lookup proposes at a time; 0 for an engine without it.
    """

    def __init__(self, request: GenerationRequest, *, proposals: int = 0) -> None:
        self.ids = list(request.prompt_ids)
        """The prompt and the answer so far."""
        self.ended = False
        """Whether a stop id was chosen, or the limit is reached."""
        self.rejected = 0
        """How many tokens of the last pass were wrong proposals, whose keys and values have to be removed."""
        self._stops = frozenset(request.stop_ids)
        self._limit = len(self.ids) + request.max_new_tokens
        self._sampler = Sampler(request.sampling, self.ids)
        uses_lookup = proposals > 0 and request.lookup != "off"
        self._lookup = PromptLookup(self.ids, proposals) if uses_lookup else None
        self._proposed: tuple[int, ...] = ()

    def append(self, rows: npt.NDArray[Any]) -> list[int]:
        """Append the next tokens, and return them: one and as many as were proposed and right, or fewer at the end.

        Args:
            rows: the logits after the last token and after each proposed one, ``[1 + proposed, vocabulary]``.
        """
        before = len(self.ids)
        for row, guess in zip(rows, (*self._proposed, None), strict=True):
            token = self._sampler.pick(row)
            if token in self._stops:
                self.ended = True
                break
            self.ids.append(token)
            self.ended = len(self.ids) == self._limit
            if self.ended or token != guess:
                break
        tokens = self.ids[before:]
        if not self.ended:
            confirmed = len(tokens) - 1
            self.rejected = len(self._proposed) - confirmed
            if self._proposed and self._lookup is not None:
                self._lookup.learn(len(self._proposed), confirmed)
        return tokens

    def following(self, *, proposes: bool = True, longest: float = math.inf) -> tuple[int, ...]:
        """Return the tokens of the next pass: the last one, and those that prompt lookup proposes after it.

        Args:
            proposes: whether prompt lookup may propose tokens this time.
            longest: how many tokens the cache may have after the pass.
        """
        room = int(min(self._limit - 1, longest)) - len(self.ids)
        self._proposed = self._lookup.propose(room) if proposes and self._lookup is not None else ()
        return (self.ids[-1], *self._proposed)
