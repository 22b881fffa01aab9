"""Options of a generation, and the reply."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, TypedDict

from attrs import field, frozen, validators

from .errors import UsageError, as_usage_error
from .pending import BLOCKING, TICK_S, Awaited, Pending
from .text.logprobs import TokenLogprob
from .text.stops import StopStrings
from .textfiles import lone_surrogate
from .turns import Turn
from .values import LOOKUPS, MOST_LOGPROBS, Sampling

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_MAX_NEW_TOKENS = 1024
_OPTIONS_HINT = "phi3 run --help lists what can be set"

Message = Mapping[str, str]
"""A message of a conversation, ``{"role": "user", "content": "…"}``; roles are system, user, assistant and tool.

For models that take tools, a system message may have their definitions as ``tools`` and an assistant's message what it
called as ``tool_calls``, both JSON as text.
"""


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments of all methods that generate; see also :class:`~phi3_core.values.Sampling`."""

    max_new_tokens: int
    """Maximum number of tokens to generate, 1024 by default; limited by the context."""
    temperature: float
    """0 (the default) is greedy and repeatable."""
    top_k: int
    """Keep the k likeliest tokens; 0 (the default) keeps all."""
    top_p: float
    """Keep the likeliest tokens that together reach this probability; 1 (the default) keeps all."""
    repetition_penalty: float
    """Over 1 discourages tokens that have occurred; 1 (the default) has no effect."""
    seed: int | None
    """Makes sampling repeatable."""
    stop: Sequence[str]
    """Strings that end the answer and are not part of it."""
    json_schema: str | None
    """A JSON schema, as text, that the answer follows; only for engines with the capability ``json_schema``."""
    lookup: str
    """Prompt lookup: ``auto`` (the default) where the engine has it, ``on`` insists, ``off`` does without."""
    logprobs: int | None
    """How many of the likeliest tokens come with each token, 0 to 20; None (the default) for text alone.

    The chunks of the text are then :class:`~phi3_core.text.logprobs.ScoredText`; only for engines with the capability
    ``logprobs``."""


@frozen(kw_only=True)
class GenerationSettings:
    """Validated :class:`GenerationOptions`."""

    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...]
    json_schema: str | None = field(default=None, validator=validators.optional(validators.instance_of(str)))
    lookup: str = field(default="auto", validator=validators.in_(LOOKUPS))
    logprobs: int | None = field(default=None)

    @logprobs.validator
    def _check_logprobs(self, _: Any, given: int | None) -> None:
        if given is not None and not (isinstance(given, int) and 0 <= given <= MOST_LOGPROBS):
            raise ValueError(f"logprobs must be 0 to {MOST_LOGPROBS}, not {given!r}")

    @classmethod
    def of(cls, options: GenerationOptions) -> GenerationSettings:
        """Return validated options.

        Raises:
            UsageError: an option is unknown or has an invalid value.
        """
        given: dict[str, Any] = dict(options)
        unknown = set(given) - set(GenerationOptions.__annotations__)
        if unknown:
            raise UsageError(f"unknown option {min(unknown)!r}", hint=_OPTIONS_HINT)
        stop = given.pop("stop", ())
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        StopStrings(stop)  # raises for an empty string
        max_new_tokens = given.pop("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be 1 or more, not {max_new_tokens!r}", hint=_OPTIONS_HINT)
        json_schema = given.pop("json_schema", None)
        others = {name: given.pop(name) for name in ("lookup", "logprobs") if name in given}
        for name, text in (*(("stop", each) for each in stop), ("json_schema", json_schema)):
            if isinstance(text, str) and (half := lone_surrogate(text)) is not None:
                raise UsageError(
                    f"{name} is not valid Unicode: it has {half}", hint="it was probably not read as UTF-8"
                )
        with as_usage_error(hint=_OPTIONS_HINT):
            sampling = Sampling(**given)
            return cls(sampling=sampling, max_new_tokens=max_new_tokens, stop=stop, json_schema=json_schema, **others)


@frozen(kw_only=True)
class Attempt:
    """A device that was tried for an answer, and the outcome."""

    device: str
    """The device as ``backend:device``."""
    outcome: str
    """``answered``, or the error message."""


@frozen(kw_only=True)
class Reply:
    """A complete answer, with its statistics."""

    text: str
    model: str
    """The name of the model."""
    device: str
    """The device that generated the answer, or its end after a failover, as ``backend:device``."""
    precision: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    """``stop``, or ``length`` if the maximum number of tokens or the context cut the answer off."""
    time_to_first_token_s: float | None
    """Seconds from the call to the first token; None without a token."""
    decode_tokens_per_s: float | None
    """Tokens per second after the first token; None with fewer than two tokens."""
    attempts: tuple[Attempt, ...]
    """The devices tried for this answer, in order. A model's first answer includes those that failed to load."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """The tokens of the text with their logarithmic probabilities, if they were asked for."""


class Stream:
    """An iterator over the chunks of an answer's text. ``reply`` is available at its end.

    Any thread may read the next chunk. Closing a stream early stops the engine; a ``with`` statement closes it on exit.
    """

    def __init__(
        self, chunks: Generator[str | Pending | Reply, None, None], turn: Turn, stops: StopStrings | None = None
    ) -> None:
        self._chunks = chunks
        self._turn = turn
        self._stops = stops
        self._reading = threading.Lock()
        self._process = os.getpid()
        self._begun = False
        self._closed = False
        self._ended = False
        self._reply: Reply | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        self._check_process()
        with self._reading:
            self._turn.begin_read()
            try:
                while (item := self._advance()) is not None:
                    if isinstance(item, str):
                        return item
                    if item is not BLOCKING:
                        self._wait(item)
            except CancelledError:  # closed by another thread while this one waited
                pass
            finally:
                self._end_read()
            raise StopIteration

    def advance(self) -> str | Pending | None:
        """Return the next chunk, or what the answer waits for, without blocking; None at the end.

        After :data:`~phi3_core.pending.BLOCKING`, the next call may block.
        """
        self._check_process()
        with self._reading:
            self._turn.begin_read()
            try:
                return self._advance()
            finally:
                self._end_read()

    def _check_process(self) -> None:
        if self._begun and not self._ended:
            check_process(self._process)

    def _advance(self) -> str | Pending | None:
        if self._closed or self._ended:
            return None
        self._begun = True
        try:
            item = next(self._chunks)
        except BaseException:
            self._ended = True
            raise
        if isinstance(item, Reply):
            self._reply, self._ended = item, True
            self._chunks.close()
            return None
        return item

    def _end_read(self) -> None:
        self._turn.end_read()
        if self._closed:
            self._chunks.close()

    def _wait(self, event: Awaited) -> None:
        try:
            event.wait(TICK_S)
        except BaseException as error:
            self._chunks.throw(error)
            raise

    @property
    def ended(self) -> bool:
        """Whether the answer has ended, complete or with an error."""
        return self._ended

    @property
    def turn(self) -> Turn:
        """The answer's turn at the engine."""
        return self._turn

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer; None if none has."""
        return None if self._stops is None else self._stops.match

    @property
    def reply(self) -> Reply:
        """The complete answer.

        Raises:
            UsageError: the stream has not ended.
        """
        if self._reply is None:
            raise UsageError("the reply is there only when the stream has ended")
        return self._reply

    def close(self) -> None:
        """Stop the engine if it is still generating. Another thread that is reading reaches the end."""
        self._closed = True
        self._turn.cancel()
        if self._reading.acquire(blocking=False):
            try:
                self._chunks.close()
            finally:
                self._reading.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_process(process: int) -> None:
    """Raise :class:`UsageError` if this is another process, forked from the one that loaded a model.

    Args:
        process: the id of the process that loaded it.
    """
    if os.getpid() != process:
        raise UsageError(
            "the model was loaded by the process that this one was forked from",
            hint="load it in this process, or start processes with multiprocessing's method spawn",
        )


def messages_of(prompt: str, system: str | None) -> list[Message]:
    """Return a conversation that begins with a prompt. Raises :class:`UsageError` if that is empty."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty", hint='phi3 run "What is the capital of France?"')
    asked = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, asked] if system else [asked]
