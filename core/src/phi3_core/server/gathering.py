"""From the events of answers to whole ones, which a response without a stream is made of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from .calls import Event, Finished, TextDelta, ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from phi3_core.text.logprobs import TokenLogprob


@define
class Choice:
    """One answer, as far as its events have come."""

    tokens: list[TokenLogprob] = field(factory=list)
    """The tokens with their logarithmic probabilities, if they were asked for."""
    end: Finished = field(init=False)
    """The last of the events; an answer that has not ended has none."""
    _texts: list[str] = field(factory=list, init=False)
    _tool_calls: dict[int, ToolCall] = field(factory=dict, init=False)

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self._texts)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of tools, in their order."""
        return [call for _, call in sorted(self._tool_calls.items())]

    def push(self, event: Event) -> None:
        """Add what an event tells."""
        if isinstance(event, TextDelta):
            self._texts.append(event.text)
            self.tokens += event.logprobs
        elif isinstance(event, ToolCallDelta):
            begun = self._tool_calls.get(event.index, ToolCall(id=event.id or "", name=event.name or "", arguments=""))
            self._tool_calls[event.index] = evolve(begun, arguments=begun.arguments + event.arguments)
        else:
            self.end = event


async def gather(events: AsyncGenerator[Event, None], count: int) -> list[Choice]:
    """Return ``count`` answers, whole."""
    choices = [Choice() for _ in range(count)]
    async with contextlib.aclosing(events):
        async for each in events:
            choices[each.choice].push(each)
    return choices
