"""What a user holds: text in, text out, and what to do when the engine dies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from attrs import evolve

from .errors import BackendError, PromptTooLongError, UsageError
from .pipeline import Journey, Loaded
from .replies import Attempt, GenerationOptions, Message, Reply, Stream, check_options
from .text.decoder import Decoder
from .text.stops import StopStrings
from .values import GenerationRequest

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Model:
    """A loaded model. One answer is generated at a time; other threads wait for their turn."""

    def __init__(self, journey: Journey) -> None:
        self._journey = journey
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._closed = False
        self._loaded: Loaded | None = journey.advance()
        self._tokenizer = self._loaded.tokenizer
        self._context_length = self._loaded.context_length

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._journey.reference.name

    @property
    def device(self) -> str:
        """Where it runs now, as ``backend:device``."""
        return str(self._loaded.device) if self._loaded else "none"

    @property
    def precision(self) -> str:
        return self._loaded.precision if self._loaded else "none"

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._context_length

    # --- using it ---------------------------------------------------------------------------------------------------

    def generate(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Reply:
        """Answer one prompt."""
        return self.chat(_messages(prompt, system), **options)

    def stream(self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]) -> Stream:
        """Answer one prompt piece by piece."""
        return self.stream_chat(_messages(prompt, system), **options)

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Reply:
        """Answer the last of ``messages``."""
        stream = self.stream_chat(messages, **options)
        for _ in stream:
            pass
        return stream.reply

    def stream_chat(self, messages: Sequence[Message], **options: Unpack[GenerationOptions]) -> Stream:
        """Answer the last of ``messages`` piece by piece.

        Raises (here or while streaming):
            UsageError: the messages or options make no sense.
            PromptTooLongError: the messages leave no room in the context.
            BackendError: the engine failed, and no other device could take over.
        """
        return self._stream(messages, options, owner=threading.get_ident())

    async def astream(
        self, prompt: str, *, system: str | None = None, **options: Unpack[GenerationOptions]
    ) -> AsyncIterator[str]:
        """Answer one prompt piece by piece without blocking the event loop."""
        import asyncio

        messages = _messages(prompt, system)
        stream = await asyncio.to_thread(self._stream, messages, options, owner=None)
        end = object()
        waiting = None
        try:
            while True:
                waiting = asyncio.ensure_future(asyncio.to_thread(next, stream, end))
                piece = await asyncio.shield(waiting)
                if piece is end:
                    return
                yield str(piece)
        finally:
            # A task that is cancelled leaves a thread behind that waits for a token: let it have that first.
            if waiting is not None and not waiting.done():
                await asyncio.wait([waiting])
            await asyncio.to_thread(stream.close)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """How many tokens of the context these messages take."""
        return len(self._tokenizer.encode_chat(messages))

    def close(self) -> None:
        """End the engine and its process."""
        self._closed = True
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded.worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._loaded is not None:
            self._loaded.worker.kill()  # somebody is waiting at the console
        self.close()

    # --- how it does it ---------------------------------------------------------------------------------------------

    def _request(
        self, messages: Sequence[Message], options: GenerationOptions
    ) -> tuple[GenerationRequest, StopStrings]:
        sampling, wanted, stops = check_options(options)
        prompt = self._tokenizer.encode_chat(messages)
        room = self._context_length - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"the prompt has {len(prompt)} tokens, and the context of {self.name} on {self.device} holds "
                f"{self._context_length}, the answer included",
                hint="shorten the prompt",
            )
        request = GenerationRequest(
            prompt_ids=prompt,
            max_new_tokens=min(wanted, room),
            sampling=sampling,
            stop_ids=self._tokenizer.stop_ids,
        )
        return request, stops

    def _stream(self, messages: Sequence[Message], options: GenerationOptions, *, owner: int | None) -> Stream:
        if self._closed:
            raise UsageError("the model is closed")
        started = time.perf_counter()
        request, stops = self._request(messages, options)
        return Stream(self._pieces(request, stops, started, owner))

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

    def _pieces(
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
                    piece, stopped = stops.push(decoder.push(token))
                    if piece:
                        text.append(piece)
                        yield piece
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
                attempts=(*self._journey.attempts, Attempt(device=device, outcome="answered")),
            )

    def _ids(self, request: GenerationRequest) -> Generator[int, None, None]:
        """The ids of the answer, from one engine, or from several if one fails and the next goes on where it was."""
        made: list[int] = []
        while True:
            loaded = self._engine()
            try:
                for token in loaded.worker.generate(_continue(request, made)):
                    made.append(token)
                    yield token
                return
            except BackendError as error:
                loaded.worker.kill()
                self._loaded = None
                failure = self._journey.failed(error, loaded.device)
                self._loaded = self._journey.advance(failure)
            if len(made) >= request.max_new_tokens:
                return

    def _engine(self) -> Loaded:
        """The engine; loaded once more if it had to be stopped because it did not heed a cancel."""
        if self._closed:
            raise UsageError("the model is closed")
        if self._loaded is None or not self._loaded.worker.alive:
            self._loaded = self._journey.again()
        return self._loaded


def _messages(prompt: str, system: str | None) -> list[Message]:
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError("the prompt is empty", hint='phi3 run "What is the capital of France?"')
    asked = {"role": "user", "content": prompt}
    return [{"role": "system", "content": system}, asked] if system else [asked]


def _continue(request: GenerationRequest, made: Sequence[int]) -> GenerationRequest:
    if not made:
        return request
    left = request.max_new_tokens - len(made)
    return evolve(request, prompt_ids=(*request.prompt_ids, *made), max_new_tokens=left)
