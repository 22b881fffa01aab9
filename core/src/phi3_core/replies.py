"""What is asked of a model, and what it answers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import field, frozen, validators

from .errors import UsageError, as_usage_error
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
    json_schema: str | None
    """A JSON schema, as text, that the answer has to follow; only engines with that capability take it."""


@frozen(kw_only=True)
class GenerationSettings:
    """Validated :class:`GenerationOptions`."""

    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...]
    json_schema: str | None = field(default=None, validator=validators.optional(validators.instance_of(str)))

    @classmethod
    def of(cls, options: GenerationOptions) -> GenerationSettings:
        """Validate options.

        Raises:
            UsageError: one is unknown, or has a value that makes no sense.
        """
        given: dict[str, Any] = dict(options)
        unknown = set(given) - set(GenerationOptions.__annotations__)
        if unknown:
            raise UsageError(f"unknown option {min(unknown)!r}", hint=_OPTIONS_HINT)
        stop = given.pop("stop", ())
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        StopStrings(stop)  # refuses an empty one
        max_new_tokens = given.pop("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be 1 or more, not {max_new_tokens!r}", hint=_OPTIONS_HINT)
        json_schema = given.pop("json_schema", None)
        with as_usage_error(hint=_OPTIONS_HINT):
            sampling = Sampling(**given)
            return cls(sampling=sampling, max_new_tokens=max_new_tokens, stop=stop, json_schema=json_schema)


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
    """Where it was generated, or its end was, as ``backend:device``."""
    precision: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """``stop`` or ``length``."""
    time_to_first_token_s: float | None
    """Seconds from the call to the first token; None if there was none."""
    decode_tokens_per_s: float | None
    """Tokens after the first, over the time they took; None if there were none."""
    attempts: tuple[Attempt, ...]
    """Devices that were tried for this answer, in order; of a model's first answer also those that did not load."""


class Stream:
    """The text of an answer in chunks, as they come. ``reply`` is there once they have all come.

    Closing a stream early stops the engine; leaving a ``with`` block closes it.
    """

    def __init__(self, chunks: Generator[str | Reply, None, None]) -> None:
        self._chunks = chunks
        self._reply: Reply | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        chunk = next(self._chunks)
        if isinstance(chunk, Reply):
            self._reply = chunk
            self.close()
            raise StopIteration
        return chunk

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
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
