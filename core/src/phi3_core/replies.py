"""What is asked of a model, and what it answers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import frozen

from .errors import UsageError
from .text.stops import StopStrings
from .values import Sampling

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_MAX_NEW_TOKENS = 1024
_OPTIONS_HINT = "phi3 run --help lists what can be set"

Message = Mapping[str, str]
"""``{"role": "user", "content": "…"}``; roles are system, user and assistant."""


class GenerationOptions(TypedDict, total=False):
    """What every way of generating takes."""

    max_new_tokens: int
    """At most this many tokens; without it 1024, or what the context leaves."""
    temperature: float
    """0, the default, is greedy and repeatable."""
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    stop: Sequence[str]
    """Strings that end the answer; they are not part of it."""


@frozen(kw_only=True)
class Attempt:
    """A device that was tried, and what came of it: ``answered``, or the reason why not."""

    device: str
    outcome: str


@frozen(kw_only=True)
class Reply:
    """An answer, and how it came about."""

    text: str
    model: str
    device: str
    precision: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """``stop`` or ``length``."""
    time_to_first_token_s: float | None
    decode_tokens_per_s: float | None
    """Tokens after the first, over the time they took; None if there were none."""
    attempts: tuple[Attempt, ...]


class Stream:
    """The pieces of an answer as they come. ``reply`` is there once they have all come.

    Closing a stream early stops the engine; leaving a ``with`` block closes it.
    """

    def __init__(self, pieces: Generator[str | Reply, None, None]) -> None:
        self._pieces = pieces
        self._reply: Reply | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        piece = next(self._pieces)
        if isinstance(piece, Reply):
            self._reply = piece
            self.close()
            raise StopIteration
        return piece

    @property
    def reply(self) -> Reply:
        """The whole answer.

        Raises:
            UsageError: the stream has not ended.
        """
        if self._reply is None:
            raise UsageError("the reply is there only when the stream has ended")
        return self._reply

    def close(self) -> None:
        """Stop the engine if it is still at work."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_options(options: GenerationOptions) -> tuple[Sampling, int, StopStrings]:
    """The sampling, the number of new tokens and the stop strings that ``options`` ask for.

    Raises:
        UsageError: they make no sense.
    """
    given: dict[str, Any] = dict(options)
    unknown = set(given) - set(GenerationOptions.__annotations__)
    if unknown:
        raise UsageError(f"unknown option {min(unknown)!r}", hint=_OPTIONS_HINT)
    stop = given.pop("stop", ())
    wanted = given.pop("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    if not isinstance(wanted, int) or wanted < 1:
        raise UsageError(f"max_new_tokens must be 1 or more, not {wanted!r}", hint=_OPTIONS_HINT)
    try:
        sampling = Sampling(**given)
    except (TypeError, ValueError) as error:
        # attrs puts the attribute and the class behind the sentence
        raise UsageError(str(error.args[0]) if error.args else str(error), hint=_OPTIONS_HINT) from error
    return sampling, wanted, StopStrings((stop,) if isinstance(stop, str) else tuple(stop))
