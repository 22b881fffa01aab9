"""From a call to its events. Nothing else of the server touches a model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from phi3_core import tasks
from phi3_core.replies import GenerationSettings
from phi3_core.text.logprobs import ScoredText

from .calls import ChatCall, Event, Finished, TextDelta, Usage
from .errors import RefusedParameterError, StoppingError
from .lifetime import Lifetime
from .metrics import Metrics
from .toolparser import ToolCallParser
from .tools import calls_schema, check_tools, has_to_call, shown_tools, write_messages

if TYPE_CHECKING:
    from phi3_core.model import Model
    from phi3_core.replies import GenerationOptions, Stream

    from .pool import LoadedModel, ModelPool
    from .settings import ServerSettings

_SEEDS = 2**32
_ANY_OBJECT = '{"type":"object"}'


class Answering:
    """Answers calls with the models of a pool.

    Args:
        pool: the models.
        settings: has the options for calls that do not state them.
    """

    def __init__(self, pool: ModelPool, settings: ServerSettings) -> None:
        self.pool = pool
        self.metrics = Metrics()
        self.lifetime = Lifetime()
        self.lifetime.at_drain(self._refuse_waiting)
        self._settings = settings
        self._streams: set[Stream] = set()

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options of a generation for what calls do not state."""
        return self._settings.defaults

    async def events(self, call: ChatCall) -> AsyncGenerator[Event, None]:
        """Yield what happens during the answers to a call, and close them if it is closed early.

        Raises:
            ApiError: the call's model is unknown, or its engine does not support a parameter.
            UsageError: a parameter has an invalid value.
            QueueFullError: too many answers are waiting.
            Phi3Error: the model cannot be loaded, or its engine failed.
        """
        async with self.pool.use(call.model) as loaded:
            _check_capabilities(call, loaded.model)
            answers = [self._answer(call, loaded, choice) for choice in range(call.n)]
            async with contextlib.aclosing(merged(answers)) as events:
                async for event in events:
                    yield event

    async def _answer(self, call: ChatCall, loaded: LoadedModel, choice: int) -> AsyncGenerator[Event, None]:
        """Yield the events of one answer."""
        settings = self._generation(call, choice)
        messages = write_messages(call, native=loaded.model.takes_tools)
        most = None if call.parallel_tool_calls else 1
        found = ToolCallParser({tool.name for tool in shown_tools(call)}, most=most, choice=choice)
        begun: list[Stream] = []

        def begin() -> Stream:  # in a thread
            if call.prompt is not None:
                begun.append(loaded.model.complete(call.prompt, settings))
            else:
                begun.append(loaded.model.answer(messages, settings, begun=call.begun))
            self._streams.add(begun[0])
            if self.lifetime.is_draining:
                begun[0].turn.cancel()
            return begun[0]

        loaded.note_beginning()
        try:
            async with contextlib.aclosing(tasks.read(begin, loaded.executor)) as chunks:
                async for chunk in chunks:
                    loaded.note_token()
                    if isinstance(chunk, ScoredText):  # there are no tools
                        yield TextDelta(text=str(chunk), logprobs=chunk.logprobs, choice=choice)
                        continue
                    for event in found.push(chunk):
                        yield event
        except CancelledError as error:  # it was waiting for its turn when the server was stopped
            raise StoppingError from error
        finally:
            self._streams.difference_update(begun)
        loaded.note_token()
        for event in found.finish():
            yield event
        reply = begun[0].reply
        end = Finished(
            choice=choice,
            reason="tool_calls" if found.count and reply.finish_reason == "stop" else reply.finish_reason,
            stop_string=begun[0].stop_string,
            usage=Usage(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens),
            device=reply.device,
            precision=reply.precision,
            time_to_first_token_s=reply.time_to_first_token_s,
            decode_tokens_per_s=reply.decode_tokens_per_s,
        )
        self.metrics.count_answer(loaded.name, end)
        yield end

    async def probe(self, loaded: LoadedModel) -> None:
        """Generate one token. Raises :class:`~phi3_core.errors.Phi3Error` if the engine does not."""
        settings = GenerationSettings.of({"max_new_tokens": 1, "temperature": 0.0})
        begin = partial(loaded.model.answer, [{"role": "user", "content": "Hi"}], settings)
        async with contextlib.aclosing(tasks.read(begin, loaded.executor)) as chunks:
            async for _ in chunks:
                pass

    def _refuse_waiting(self) -> None:
        """End the answers that wait for their turn."""
        for stream in tuple(self._streams):
            stream.turn.cancel()

    async def count_tokens(self, call: ChatCall) -> int:
        """Return the number of tokens of a call's prompt. Raises as :meth:`events`."""
        async with self.pool.use(call.model) as loaded:
            check_tools(call)
            model = loaded.model
            messages = write_messages(call, native=model.takes_tools)
            loop = asyncio.get_running_loop()
            count = partial(model.count_tokens, messages, begun=call.begun)
            return await loop.run_in_executor(loaded.executor, count)

    def _generation(self, call: ChatCall, choice: int) -> GenerationSettings:
        stated = {
            name: value
            for name in ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "stop")
            if (value := getattr(call, name)) is not None
        }
        options: dict[str, Any] = {**self._settings.defaults, **stated}
        if call.seed is not None:
            options["seed"] = (call.seed + choice) % _SEEDS
        elif options.get("seed") is not None:
            options["seed"] = (options["seed"] + choice) % _SEEDS
        options["json_schema"] = call.json_schema or (_ANY_OBJECT if call.json_object else None)
        options["logprobs"] = call.top_logprobs if call.logprobs else None
        if has_to_call(call):
            options["json_schema"] = calls_schema(call)
        return GenerationSettings.of(cast("GenerationOptions", options))


def _check_capabilities(call: ChatCall, model: Model) -> None:
    """Refuse by name what the loaded engine does not have."""
    if call.logprobs and "logprobs" not in model.capabilities:
        raise RefusedParameterError(call.logprobs_parameter, f"is not supported: {model.device} does not give them")
    if call.logprobs and shown_tools(call):
        raise RefusedParameterError(call.logprobs_parameter, "is not supported together with tools")
    if (call.json_schema or call.json_object) and "json_schema" not in model.capabilities:
        why = f"is not supported: {model.device} cannot follow a JSON schema"
        raise RefusedParameterError(call.schema_parameter, why)
    check_tools(call)
    if call.begun and (call.json_schema or call.json_object or has_to_call(call)):
        raise RefusedParameterError("messages", "cannot begin the answer if it has to be JSON or to call a tool")
    if has_to_call(call) and "json_schema" not in model.capabilities:
        why = f"is not supported with {call.tool_choice.mode!r}: {model.device} cannot follow a JSON schema; auto works"
        raise RefusedParameterError("tool_choice", why)


async def merged(answers: list[AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
    """Yield the events of several answers as they come; close all if one fails."""
    if len(answers) == 1:
        async with contextlib.aclosing(answers[0]) as events:
            async for event in events:
                yield event
        return
    arrived: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    async def read(events: AsyncGenerator[Event, None]) -> None:
        try:
            async with contextlib.aclosing(events):
                async for event in events:
                    arrived.put_nowait(event)
        except Exception as error:
            arrived.put_nowait(error)
        finally:
            arrived.put_nowait(None)

    readers = [asyncio.ensure_future(read(events)) for events in answers]
    try:
        left = len(readers)
        while left:
            item = await arrived.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
