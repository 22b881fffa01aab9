"""One answer: its tokens chosen from logits, where it ends, and the tokens that may come next."""

from __future__ import annotations

import math
from typing import Any

import numpy.typing as npt

from phi3_core.errors import UsageError
from phi3_core.sampling import Sampler
from phi3_core.values import GenerationRequest

from .grammar import Grammar, is_available
from .prompt_lookup import PromptLookup
from .scored import score


def answer_capabilities() -> frozenset[str]:
    """Return what an :class:`Answer` can do, as words for the ``capabilities`` of an engine that uses it."""
    return frozenset({"logprobs", "json_schema"} if is_available() else {"logprobs"})


class Answer:
    """What a request's answer is made of, besides the model's passes, for engines that run these themselves.

    After the pass that reads the prompt, :meth:`append` takes the logits after its last token. From then on each pass
    gets the tokens of :meth:`following`, and :meth:`append` the logits after each of them, until the answer has ended.

    Args:
        request: what to answer.
        proposals: the largest number of tokens that prompt lookup proposes at a time; 0 for an engine without it.

    Raises:
        UsageError: the request's JSON schema cannot be followed.
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
        self._top = request.logprobs
        self._grammar = _grammar_of(request)
        uses_lookup = proposals > 0 and request.lookup != "off"
        self._lookup = PromptLookup(self.ids, proposals) if uses_lookup else None
        self._proposed: tuple[int, ...] = ()

    def append(self, rows: npt.NDArray[Any]) -> list[int]:
        """Append the next tokens, and return them: one and as many as were proposed and right, or fewer at the end.

        Args:
            rows: the logits after the last token and after each proposed one, ``[1 + proposed, vocabulary]``.

        Raises:
            UsageError: the request's JSON schema cannot be followed any further.
        """
        tokens: list[int] = []
        for row, guess in zip(rows, (*self._proposed, None), strict=True):
            token = self._choose(row)
            if token is None or token in self._stops:
                self.ended = True
                break
            self.ids.append(token)
            tokens.append(token if self._top is None else score(token, row, self._top))
            self.ended = len(self.ids) == self._limit or (self._grammar is not None and self._grammar.ended)
            if self.ended or token != guess:
                break
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
        if self._proposed and self._grammar is not None:
            self._proposed = self._proposed[: self._grammar.allows(self._proposed)]
        return (self.ids[-1], *self._proposed)

    def _choose(self, row: npt.NDArray[Any]) -> int | None:
        """Choose the next token; None if the grammar has none, because the text is whole."""
        if self._grammar is None:
            return self._sampler.pick(row)
        token = self._sampler.likeliest(row)
        if token is None or not self._allows(self._grammar, token):
            allowed = self._grammar.mask(len(row), self._stops)
            if not allowed.any():
                return None
            token = self._sampler.pick(row, allowed)
        if token not in self._stops:
            self._grammar.advance(token)
        return token

    def _allows(self, grammar: Grammar, token: int) -> bool:
        """Return whether the text may go on with a token, which is faster than finding all that it may go on with."""
        return grammar.can_end() if token in self._stops else grammar.allows([token]) == 1


def _grammar_of(request: GenerationRequest) -> Grammar | None:
    if request.json_schema is None:
        return None
    if request.grammar is None:
        raise UsageError("the tokenizer is not known, without which no JSON schema can be followed")
    found: Grammar = request.grammar.begin(request.prompt_ids[len(request.prompt_ids) - request.answered :])
    return found
