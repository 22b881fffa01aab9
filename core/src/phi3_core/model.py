"""What a user holds: text in, text out, and what to do when the engine dies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from .errors import PromptTooLongError, UsageError
from .pipeline import generate
from .replies import Attempt, GenerationOptions, GenerationSettings, Message, Reply, Stream
from .session import EngineSession
from .text.decoder import Decoder
from .text.stops import StopStrings
from .values import GenerationRequest

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Model:
    """A loaded model. One answer is generated at a time; other threads wait for their turn."""

    def __init__(self, session: EngineSession) -> None:
        engine = session.ready()
        self._session = session
        self._tokenizer = engine.tokenizer
        self._context_length = engine.context_length
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._closed = False

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def device(self) -> str:
        """Where it runs now, as ``backend:device``."""
        return str(self._session.engine.device) if self._session.engine else "none"

    @property
    def precision(self) -> str:
        return self._session.engine.precision if self._session.engine else "none"

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._context_length

    # --- using it ---------------------------------------------------------------------------------------------------

    def generate(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Reply:
        """Answer one prompt. Raises as :meth:`stream_chat`."""
        return self.chat(_messages(prompt, system), **options)

    def stream(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Stream:
        """Answer one prompt in chunks. Raises as :meth:`stream_chat`."""
        return self.stream_chat(_messages(prompt, system), **options)

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Reply:
        """Answer the last of ``messages``. Raises as :meth:`stream_chat`."""
        stream = self.stream_chat(messages, **options)
        for _ in stream:
            pass
        return stream.reply

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Stream:
        """Answer the last of ``messages`` in chunks.

        Raises (here or while streaming):
            UsageError: the messages or options make no sense.
            PromptTooLongError: the messages leave no room in the context.
            BackendError: the engine failed, and no other device could take over.
        """
        return self.answer(messages, GenerationSettings.of(options))

    def answer(self, messages: Sequence[Message], settings: GenerationSettings) -> Stream:
        """:meth:`stream_chat` with options that were validated before."""
        return self._stream(messages, settings, owner=threading.get_ident())

    async def astream(
        self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]
    ) -> AsyncIterator[str]:
        """Answer one prompt in chunks without blocking the event loop. Raises as :meth:`stream_chat`."""
        import asyncio  # start-up: a quarter of what importing this module takes

        messages, settings = _messages(prompt, system), GenerationSettings.of(options)
        stream = await asyncio.to_thread(self._stream, messages, settings, owner=None)
        end = object()
        waiting = None
        try:
            while True:
                waiting = asyncio.ensure_future(asyncio.to_thread(next, stream, end))
                chunk = await asyncio.shield(waiting)
                if chunk is end:
                    return
                yield str(chunk)
        finally:
            # A task that is cancelled leaves a thread behind that waits for a token: let it have that first.
            if waiting is not None and not waiting.done():
                await asyncio.wait([waiting])
            await asyncio.to_thread(stream.close)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return how many tokens of the context these messages take."""
        return len(self._tokenizer.encode_chat(messages))

    def close(self) -> None:
        """End the engine and its process."""
        self._closed = True
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._session.kill()  # somebody is waiting at the console
        self.close()

    # --- how it does it ---------------------------------------------------------------------------------------------

    def _request(self, messages: Sequence[Message], settings: GenerationSettings) -> GenerationRequest:
        prompt = self._tokenizer.encode_chat(messages)
        room = self._context_length - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens, and the context of {self.name} on {self.device} holds "
                f"{self._context_length}, the answer included",
                hint="shorten the prompt",
            )
        return GenerationRequest(
            prompt_ids=prompt,
            max_new_tokens=min(settings.max_new_tokens, room),
            sampling=settings.sampling,
            stop_ids=self._tokenizer.stop_ids,
            json_schema=settings.json_schema,
        )

    def _stream(self, messages: Sequence[Message], settings: GenerationSettings, *, owner: int | None) -> Stream:
        if self._closed:
            raise UsageError("the model is closed")
        started = time.perf_counter()
        request = self._request(messages, settings)
        return Stream(self._chunks(request, StopStrings(settings.stop), started, owner))

    @contextlib.contextmanager
    def _in_turn(self, owner: int | None) -> Iterator[None]:
        """Wait for other threads' answers. ``owner`` is this thread, or None if it is the event loop's business."""
        if owner is not None and owner == self._owner:
            raise UsageError("another answer of this model is still being streamed", hint="finish it, or close() it")
        with self._turn:
            self._owner = owner
            try:
                yield
            finally:
                self._owner = None
                self._session.forget_attempts()

    def _chunks(
        self, request: GenerationRequest, stops: StopStrings, started: float, owner: int | None
    ) -> Generator[str | Reply, None, None]:
        decoder = Decoder(self._tokenizer)
        text: list[str] = []
        count, first, last, stopped = 0, 0.0, 0.0, False
        with self._in_turn(owner):
            with contextlib.closing(self._ids(request)) as ids:
                for token in ids:
                    last = time.perf_counter()
                    first = first or last
                    count += 1
                    chunk, stopped = stops.push(decoder.push(token))
                    if chunk:
                        text.append(chunk)
                        yield chunk
                    if stopped:
                        break
            if not stopped:
                rest, stopped = stops.push(decoder.finish())
                rest += stops.finish()
                stopped = stops.found
                if rest:
                    text.append(rest)
                    yield rest
            device = self.device
            yield Reply(
                text="".join(text),
                model=self.name,
                device=device,
                precision=self.precision,
                prompt_tokens=len(request.prompt_ids),
                completion_tokens=count,
                finish_reason="stop" if stopped or count < request.max_new_tokens else "length",
                time_to_first_token_s=first - started if count else None,
                decode_tokens_per_s=(count - 1) / (last - first) if count > 1 else None,
                attempts=(*self._session.attempts, Attempt(device=device, outcome="answered")),
            )

    def _ids(self, request: GenerationRequest) -> Generator[int, None, None]:
        if self._closed:
            raise UsageError("the model is closed")
        yield from generate(self._session, request)


def _messages(prompt: str, system: str | None) -> list[Message]:
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty", hint='phi3 run "What is the capital of France?"')
    asked = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, asked] if system else [asked]
