"""The events of a response of ``/v1/responses``, and the response that they make."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from phi3_core.text.logprobs import TokenLogprob

from . import openai
from .calls import Event, Finished, TextDelta, ToolCallDelta, Usage
from .errors import ApiError
from .responses_request import ResponsesRequest

ResponseEvent = dict[str, Any]


class ResponseEvents:
    """Makes the events of one response from those of its answer.

    Args:
        request: what was asked.
        defaults: the sampling settings for what the request does not state.
    """

    def __init__(self, request: ResponsesRequest, defaults: Mapping[str, Any]) -> None:
        self.id = _new_id("resp")
        self._request = request
        self._defaults = defaults
        self._created = int(time.time())
        self._number = 0
        self._output: list[dict[str, Any]] = []
        self._usage: Usage | None = None
        self._status = "in_progress"
        self._error: dict[str, Any] | None = None

    def begin(self) -> Iterator[ResponseEvent]:
        """Yield the first events."""
        yield self._event("response.created", response=self.document())
        yield self._event("response.in_progress", response=self.document())

    def push(self, event: Event) -> Iterator[ResponseEvent]:
        """Yield the events that an event of the answer makes."""
        if isinstance(event, TextDelta):
            yield from self._text(event.text, _logprobs(event.logprobs))
        elif isinstance(event, ToolCallDelta):
            yield from self._call(event)
        else:
            yield from self._finish(event)

    def fail(self, error: ApiError) -> Iterator[ResponseEvent]:
        """Yield the last events of a response that an error ends."""
        self._status = "failed"
        code = "server_error" if error.status >= 500 else "invalid_prompt"
        self._error = {"code": code, "message": error.message}
        yield self._event("response.failed", response=self.document())

    # --- items ----------------------------------------------------------------------------------------------------

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[ResponseEvent]:
        if not (item := self._open()) or item["type"] != "message":
            yield from self._close()
            item = {"id": _new_id("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
            yield from self._add({**item, "content": []})
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._output[-1]["content"].append(part)
            yield self._of_part("response.content_part.added", part=part)
        part = self._output[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += logprobs
        yield self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def _call(self, event: ToolCallDelta) -> Iterator[ResponseEvent]:
        if event.id is not None:
            yield from self._close()
            item = {"id": _new_id("fc"), "type": "function_call", "status": "in_progress", "call_id": event.id}
            yield from self._add({**item, "name": event.name, "arguments": ""})
        if event.arguments:
            self._output[-1]["arguments"] += event.arguments
            yield self._of_item("response.function_call_arguments.delta", delta=event.arguments)

    def _add(self, item: dict[str, Any]) -> Iterator[ResponseEvent]:
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)

    def _open(self) -> dict[str, Any] | None:
        """Return the item that is not finished yet."""
        return self._output[-1] if self._output and self._output[-1]["status"] == "in_progress" else None

    def _close(self, status: str = "completed") -> Iterator[ResponseEvent]:
        item = self._open()
        if item is None:
            return
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            yield self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            yield self._of_part("response.content_part.done", part=part)
        else:
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._of_item("response.function_call_arguments.done", **done)
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _finish(self, event: Finished) -> Iterator[ResponseEvent]:
        self._usage = event.usage
        if not self._output:
            yield from self._text("", [])
        self._status = "incomplete" if event.reason == "length" else "completed"
        yield from self._close(self._status)
        yield self._event(f"response.{self._status}", response=self.document())

    # --- documents ------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **content: Any) -> ResponseEvent:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **content}

    def _of_item(self, kind: str, **content: Any) -> ResponseEvent:
        place = len(self._output) - 1
        return self._event(kind, item_id=self._output[place]["id"], output_index=place, **content)

    def _of_part(self, kind: str, **content: Any) -> ResponseEvent:
        return self._of_item(kind, content_index=0, **content)

    def document(self) -> dict[str, Any]:
        """Return the response as it is now."""
        request = self._request
        choice = request.tool_choice or "auto"
        is_over = self._status in {"completed", "incomplete"}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if self._status == "completed" else None,
            "status": self._status,
            "error": self._error,
            "incomplete_details": {"reason": "max_output_tokens"} if self._status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": request.model,
            "output": self._output,
            "usage": _usage(self._usage) if is_over and self._usage else None,
            "tools": [{**tool.model_dump(), "strict": bool(tool.strict)} for tool in request.tools or ()],
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "text": _text_options(request),
            "temperature": self._sampling("temperature", request.temperature, 0.0),
            "top_p": self._sampling("top_p", request.top_p, 1.0),
            "metadata": request.metadata or {},
            "user": request.user,
            "safety_identifier": request.safety_identifier,
            "prompt_cache_key": request.prompt_cache_key,
            "service_tier": "default",
            "truncation": "disabled",
            "store": False,
            "background": False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "max_tool_calls": None,
            "top_logprobs": request.top_logprobs or 0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }

    def _sampling(self, name: str, stated: float | None, otherwise: float) -> float:
        return float(self._defaults.get(name, otherwise) if stated is None else stated)


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Return tokens as chat has them, but for control tokens, which have a list of bytes here, too."""
    found = openai.logprobs(tokens)
    for each in found:
        for token in (each, *each["top_logprobs"]):
            token["bytes"] = token["bytes"] or []
    return found


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _text_options(request: ResponsesRequest) -> dict[str, Any]:
    form = request.text.format if request.text else None
    return {"format": form.model_dump(by_alias=True) if form else {"type": "text"}, "verbosity": "medium"}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(16)}"
