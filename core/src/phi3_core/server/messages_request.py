"""Requests to ``/v1/messages``, Anthropic's interface, as calls."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from attrs import evolve
from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from . import calls
from .requests import (
    LONGEST_STOP,
    MOST_MESSAGES,
    MOST_STOPS,
    MOST_TOOLS,
    MaxTokens,
    Neutral,
    Request,
    ShortText,
    Text,
    TopK,
    check_schema,
    nucleus,
)


class CacheControl(Request):
    """Where a prompt may be cached. Accepted without effect: prompts are cached by their beginnings."""

    type: Literal["ephemeral"]
    ttl: ShortText | None = None


class TextBlock(Request):
    """Text."""

    type: Literal["text"]
    text: Text
    cache_control: CacheControl | None = None
    citations: Annotated[Any, Neutral([])] = None


class ToolUseBlock(Request):
    """A call that an earlier answer made."""

    type: Literal["tool_use"]
    id: ShortText
    name: ShortText
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: Any = None
    """Who called, as answers state it. Accepted without effect: only the model does."""


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _one_of_blocks(words: str) -> Discriminator:
    return Discriminator(_kind, custom_error_type="refused", custom_error_message=f"is not supported: {words}")


class ToolResultBlock(Request):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: ShortText
    content: Text | Annotated[list[TextBlock], Field(max_length=MOST_MESSAGES)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")],
    _one_of_blocks("the models read text, tool_use and tool_result blocks"),
]


class Message(Request):
    """A message of the user or the assistant."""

    role: Literal["user", "assistant"]
    content: Text | Annotated[list[Block], Field(max_length=MOST_MESSAGES)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        wrong = ToolResultBlock if self.role == "assistant" else ToolUseBlock
        if isinstance(self.content, list) and any(isinstance(block, wrong) for block in self.content):
            kinds = "tool_result" if self.role == "assistant" else "tool_use"
            words = "messages of the {role} have no {kinds} blocks"
            raise PydanticCustomError("block", words, {"role": self.role, "kinds": kinds})
        return self

    def messages(self) -> list[calls.ChatMessage]:
        """Return the messages that it is in a call: each result is one of its own."""
        if isinstance(self.content, str):
            return [calls.ChatMessage(role=self.role, content=self.content)]
        results = [
            calls.ChatMessage(role="tool", content=_result(block), tool_call_id=block.tool_use_id)
            for block in self.content
            if isinstance(block, ToolResultBlock)
        ]
        text = "".join(block.text for block in self.content if isinstance(block, TextBlock))
        made = [
            calls.ToolCall(id=block.id, name=block.name, arguments=json.dumps(block.input, ensure_ascii=False))
            for block in self.content
            if isinstance(block, ToolUseBlock)
        ]
        if text or made or not results:
            return [*results, calls.ChatMessage(role=self.role, content=text, tool_calls=tuple(made))]
        return results


class Tool(Request):
    """A function that the model may call."""

    type: Literal["custom"] | None = None
    name: ShortText
    description: Text | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: Annotated[Any, Neutral(False)] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_schema(self.input_schema)
        return self

    def tool(self) -> calls.Tool:
        """Return the tool as it is in a call."""
        return calls.Tool(
            name=self.name,
            description=self.description or "",
            parameters=self.input_schema,
            strict=bool(self.strict),
        )


class ToolChoice(Request):
    """Which tools the model may or must call."""

    type: Literal["auto", "any", "tool", "none"]
    name: ShortText | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise PydanticCustomError("name", "name is stated with the type tool, and only there")
        return self


class OutputFormat(Request):
    """The form of an answer."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_schema(self.schema_)
        return self


class OutputConfig(Request):
    """How the answer looks."""

    format: OutputFormat | None = None
    effort: Annotated[Any, Neutral()] = None


class Metadata(Request):
    """Accepted without effect: there is no abuse to look into."""

    user_id: ShortText | None = None


class Thinking(Request):
    """Whether a model thinks before it answers."""

    type: Annotated[Any, Neutral("disabled", why="is not supported: the models do not think apart; send disabled")]


class CountRequest(Request):
    """The parameters of ``/v1/messages/count_tokens``."""

    model: ShortText
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    system: Text | Annotated[list[TextBlock], Field(max_length=MOST_MESSAGES)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    context_management: Annotated[Any, Neutral()] = None
    mcp_servers: Annotated[Any, Neutral([], why="is not supported: the server asks nothing of the network")] = None

    def call(self) -> calls.ChatCall:
        """Return the call, without what only matters for the answer."""
        choice = self.tool_choice or ToolChoice(type="auto")
        mode = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}[choice.type]
        system = self.system if isinstance(self.system, str) else "\n\n".join(each.text for each in self.system or ())
        before = [calls.ChatMessage(role="system", content=system)] if system else []
        form = self.output_config.format if self.output_config else None
        messages = [*before, *(each for message in self.messages for each in message.messages())]
        goes_on = messages[-1].role == "assistant" and not messages[-1].tool_calls
        return calls.ChatCall(
            model=self.model,
            begun=messages.pop().content if goes_on else "",
            messages=tuple(messages),
            tools=tuple(tool.tool() for tool in self.tools or ()),
            tool_choice=calls.ToolChoice(mode=mode, name=choice.name),
            parallel_tool_calls=not choice.disable_parallel_tool_use,
            json_schema=check_schema(form.schema_) if form else None,
            schema_parameter="output_config.format",
        )


class MessagesRequest(CountRequest):
    """The parameters of ``/v1/messages``."""

    max_tokens: MaxTokens
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: TopK | None = None
    stop_sequences: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]], Field(max_length=MOST_STOPS)]
        | None
    ) = None
    stream: bool | None = None
    metadata: Metadata | None = None
    service_tier: Annotated[Any, Neutral("auto", "standard_only")] = None
    container: Annotated[Any, Neutral()] = None
    inference_geo: Annotated[Any, Neutral()] = None
    speed: Annotated[Any, Neutral("standard")] = None

    def call(self) -> calls.ChatCall:
        """Return the call."""
        return evolve(
            super().call(),
            max_new_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=nucleus(self.top_p),
            top_k=self.top_k,
            stop=None if self.stop_sequences is None else tuple(self.stop_sequences),
        )


def _result(block: ToolResultBlock) -> str:
    content = block.content or ""
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    return f"Error: {text}" if block.is_error else text
