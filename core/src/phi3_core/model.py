"""A loaded model: text in, text out, with failover to the next device."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from .answer_text import answer_text
from .answers import Answer
from .errors import PromptTooLongError, UsageError
from .replies import GenerationOptions, GenerationSettings, Message, Reply, Stream, check_process, messages_of
from .session import EngineSession
from .text.guard import TooManyTokensError
from .text.stops import StopStrings
from .turns import Turn
from .values import GenerationRequest

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from typing_extensions import Self, Unpack


class Model:
    """A loaded model, as :func:`phi3_core.load` returns it.

    As many answers are generated at once as the engine takes. The others wait, in threads and tasks alike, in the order
    in which they are first read. If an engine fails, the next device that matches the request continues its answers.
    """

    def __init__(self, session: EngineSession) -> None:
        engine = session.ready()
        self._session = session
        self._tokenizer = engine.tokenizer
        self._context_length = engine.context_length
        self._process = os.getpid()
        self._executor: Executor | None = None

    # --- properties -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._session.name

    @property
    def device(self) -> str:
        """The current device as ``backend:device``; ``none`` without an engine."""
        return str(self._session.engine.device) if self._session.engine else "none"

    @property
    def precision(self) -> str:
        """The precision of the weights; ``none`` without an engine."""
        return self._session.engine.precision if self._session.engine else "none"

    @property
    def kind(self) -> str:
        """The kind of the current device; ``none`` without an engine."""
        return self._session.engine.device.kind if self._session.engine else "none"

    @property
    def process(self) -> int | None:
        """The id of the engine's process, for tools that watch it; None without an engine."""
        return self._session.engine.worker.process if self._session.engine else None

    @property
    def max_concurrency(self) -> int:
        """Number of answers that the engine generates at once."""
        return self._session.turns.places

    @property
    def running(self) -> int:
        """Number of answers that are being generated."""
        return self._session.turns.running

    @property
    def waiting(self) -> int:
        """Number of answers that wait for their turn."""
        return self._session.turns.waiting

    @property
    def capabilities(self) -> frozenset[str]:
        """Optional features of the engine, such as ``json_schema``; empty without an engine."""
        return self._session.engine.capabilities if self._session.engine else frozenset()

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of prompt and answer together."""
        return self._context_length

    @property
    def takes_tools(self) -> bool:
        """Whether the model was trained to read ``tools`` and ``tool_calls`` of messages, and messages of tools."""
        return self._tokenizer.takes_tools

    # --- generation -------------------------------------------------------------------------------------------------

    def generate(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Reply:
        """Answer one prompt.

        Args:
            prompt: the user's message.
            system: the system message, if any.
            **options: see :class:`~phi3_core.replies.GenerationOptions`.

        Returns:
            The complete answer.

        Raises:
            Phi3Error: see :meth:`stream_chat`.
        """
        return self.chat(messages_of(prompt, system), **options)

    def stream(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Stream:
        """Answer one prompt, as chunks of text. Takes the arguments of :meth:`generate`."""
        return self.stream_chat(messages_of(prompt, system), **options)

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Reply:
        """Answer a conversation. Takes the arguments of :meth:`stream_chat`, and returns the complete answer."""
        stream = self.stream_chat(messages, **options)
        for _ in stream:
            pass
        return stream.reply

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Stream:
        """Answer a conversation, as chunks of text.

        Args:
            messages: the conversation, oldest message first.
            **options: see :class:`~phi3_core.replies.GenerationOptions`.

        Returns:
            An iterator over the chunks. Errors may also be raised while it is read.

        Raises:
            UsageError: the messages or options are invalid, or the model is closed.
            PromptTooLongError: the messages leave no room for an answer in the context.
            QueueFullError: as many answers as ``max_waiting`` allows are waiting already.
            BackendError: the engine failed, and no other device could continue.
        """
        return self.answer(messages, GenerationSettings.of(options))

    def answer(self, messages: Sequence[Message], settings: GenerationSettings, *, begun: str = "") -> Stream:
        """Answer a conversation as :meth:`stream_chat` does, with validated settings.

        Args:
            messages: the conversation, oldest message first.
            settings: how the answer is generated.
            begun: the beginning of the answer, with which it goes on and which it does not repeat.
        """
        self._check_usable()
        started = time.perf_counter()
        try:
            prompt = self._encode(messages, begun, most=self._context_length)
        except TooManyTokensError:
            prompt = None
        is_prompt = sum(message["role"] != "system" for message in messages) == 1
        what = "prompt" if is_prompt else "conversation"
        return self._stream(prompt, settings, started, what=what, continues=bool(begun))

    def complete(self, prompt: str, settings: GenerationSettings) -> Stream:
        """Continue a text as it is, without the chat template. Raises as :meth:`stream_chat`."""
        self._check_usable()
        started = time.perf_counter()
        if not prompt:
            raise UsageError("the prompt is empty", hint="give it at least one character")
        try:
            ids = self._tokenizer.encode(prompt, most=self._context_length)
        except TooManyTokensError:
            ids = None
        return self._stream(ids, settings, started, what="prompt", continues=True)

    def astream(
        self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[str, None]:
        """Answer one prompt, as chunks of text, without blocking the event loop.

        Takes the arguments of :meth:`generate`. Errors are raised while it is read.
        """
        from . import tasks  # start-up: asyncio, a quarter of this module's import time

        if self._executor is None:
            self._executor = tasks.make_executor()
        # Not in a generator of its own: asyncio.run closes those that are left all at once, the inner ones too.
        return tasks.read(lambda: self.stream(prompt, system=system, **options), self._executor)

    def count_tokens(self, messages: Sequence[Message], *, begun: str = "") -> int:
        """Return the number of tokens of a conversation, chat template and the answer's beginning included."""
        return len(self._encode(messages, begun))

    def fits(self, messages: Sequence[Message], *, answer_tokens: int = 1) -> bool:
        """Return whether a conversation leaves room for an answer of so many tokens in the context."""
        most = self._context_length - answer_tokens
        try:
            return len(self._tokenizer.encode_chat(messages, most=most)) <= most
        except TooManyTokensError:
            return False

    def close(self) -> None:
        """Close the engine and end its worker process."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._session.kill()  # end at once on Ctrl-C
        self.close()

    # --- implementation ---------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._session.closed:
            raise UsageError("the model is closed")
        check_process(self._process)

    def _encode(self, messages: Sequence[Message], begun: str, *, most: int | None = None) -> list[int]:
        """Return the ids of a conversation and of the beginning of its answer."""
        ids = self._tokenizer.encode_chat(messages, most=most)
        return [*ids, *self._tokenizer.encode(begun, most=most)] if begun else ids

    def _stream(
        self,
        prompt: list[int] | None,
        settings: GenerationSettings,
        started: float,
        *,
        what: str,
        continues: bool,
    ) -> Stream:
        """Return the answer to a prompt; None is one of far more tokens than the context holds."""
        room = 0 if prompt is None else self._context_length - len(prompt)
        if prompt is None or room < 1:
            raise self._too_long(what, f"far more than {self._context_length}" if prompt is None else str(len(prompt)))
        request = GenerationRequest(
            prompt_ids=prompt,
            max_new_tokens=min(settings.max_new_tokens, room),
            sampling=settings.sampling,
            stop_ids=self._tokenizer.stop_ids,
            json_schema=settings.json_schema,
            lookup=settings.lookup,
            logprobs=settings.logprobs,
        )
        answer, stops = Answer(Turn(self._session.turns)), StopStrings(settings.stop)
        chunks = answer_text(
            self._session, self._tokenizer, request, stops, answer=answer, started=started, continues=continues
        )
        return Stream(chunks, answer.turn, stops)

    def _too_long(self, what: str, count: str) -> PromptTooLongError:
        return PromptTooLongError(
            f"the {what} has {count} tokens, and the context of {self.name} on {self.device} holds "
            f"{self._context_length}, the answer included",
            hint="shorten it" if what == "prompt" else "leave the oldest messages out",
        )
