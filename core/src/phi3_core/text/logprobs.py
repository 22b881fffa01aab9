"""Tokens with their logarithmic probabilities, beside the text of an answer."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import frozen

from phi3_core.values import ScoredToken

if TYPE_CHECKING:
    from typing_extensions import Self

    from .tokenizer import Tokenizer


@frozen(kw_only=True)
class TokenLogprob:
    """A token, and the natural logarithm of its probability."""

    token: str
    """Its text, where a part of a character is U+FFFD; of a control token the name."""
    bytes: bytes | None
    """Its text in UTF-8, of which a character may take several tokens; None for a control token."""
    logprob: float
    """From the model's logits as they are, before temperature, penalties and schemas."""
    start: int = 0
    """Where it begins in the answer's text, in characters."""
    top: tuple[TokenLogprob, ...] = ()
    """The likeliest tokens in its place, likeliest first."""


class ScoredText(str):  # noqa: SLOT000 - with slots, some versions of Python cannot make it
    """A chunk of an answer's text, with its tokens. An answer with ``logprobs`` consists of such chunks."""

    logprobs: tuple[TokenLogprob, ...]

    def __new__(cls, text: str, logprobs: Iterable[TokenLogprob]) -> Self:
        """Make one."""
        made = super().__new__(cls, text)
        made.logprobs = tuple(logprobs)
        return made


def logprobs_of(chunks: Iterable[str]) -> tuple[TokenLogprob, ...]:
    """Return the tokens of an answer's chunks."""
    return tuple(token for chunk in chunks if isinstance(chunk, ScoredText) for token in chunk.logprobs)


class TokenTexts:
    """Holds the tokens of an answer until their text is shown.

    A character may take several tokens, and text may be held back that could begin a stop string.

    Args:
        tokenizer: the model's tokenizer.
        continues: as for :class:`~phi3_core.text.decoder.Decoder`.
    """

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._held: collections.deque[TokenLogprob] = collections.deque()
        self._decoded = 0
        """Characters that the tokens have completed."""
        self._shown = 0
        self._at_start = not continues

    def push(self, token: int, text: str) -> None:
        """Add a token, a :class:`~phi3_core.values.ScoredToken`, and the text that it has completed."""
        assert isinstance(token, ScoredToken)
        top = tuple(self._described(each, logprob) for each, logprob in token.top)
        self._held.append(self._described(token, token.logprob, start=self._decoded, top=top))
        self._decoded += len(text)
        self._at_start = self._at_start and not self._tokenizer.pieces.inside(token)

    def show(self, text: str, *, all_of_it: bool = False) -> ScoredText:
        """Return more text of the answer with the tokens that it begins with or completes.

        Args:
            text: the text.
            all_of_it: whether the answer ends with it by itself, and not at a stop string.
        """
        self._shown += len(text)
        shown: list[TokenLogprob] = []
        while self._held and (all_of_it or self._held[0].start < self._shown):
            shown.append(self._held.popleft())
        return ScoredText(text, shown)

    def _described(
        self, token: int, logprob: float, *, start: int = 0, top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        pieces = self._tokenizer.pieces
        if not pieces.inside(token):
            name = self._tokenizer.name(token)
            return TokenLogprob(token=name, bytes=None, logprob=logprob, start=start, top=top)
        piece = pieces.at_start(token) if self._at_start else pieces.inside(token)
        text = piece.decode("utf-8", "replace")
        return TokenLogprob(token=text, bytes=piece, logprob=logprob, start=start, top=top)
