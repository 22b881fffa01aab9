"""Requests to ``/v1/chat/completions``, as calls."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from . import calls
from .requests import (
    MOST_MESSAGES,
    MOST_TOOLS,
    MaxTokens,
    Neutral,
    Request,
    Sampling,
    ShortText,
    Text,
    check_schema,
    invalid,
    refused,
)


class Part(Request):
    """A part of a message's content: text, because the models read nothing else."""

    type: Literal["text", "refusal", "image_url", "input_audio", "file"]
    text: Text | None = None
    refusal: Text | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type not in {"text", "refusal"}:
            raise refused(f"is not supported: the models read text only, no {self.type}")
        if (self.text if self.type == "text" else self.refusal) is None:
            raise PydanticCustomError("part", "a part of the type {type} states its {type}", {"type": self.type})
        return self

    @property
    def words(self) -> str:
        """The text of the part."""
        return (self.text if self.type == "text" else self.refusal) or ""


class CalledFunction(Request):
    """The function of a tool call."""

    name: ShortText
    arguments: Text
    parsed_arguments: Any = None
    """The arguments once more, as the package openai gives back what it has parsed."""


class Called(Request):
    """A tool call of an earlier answer."""

    id: ShortText
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None
    """Left over from a stream."""


class Message(Request):
    """A message, as clients state it or give an answer back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(max_length=MOST_MESSAGES)] | None = None
    name: ShortText | None = None
    """Accepted without effect: the chat templates have no place for it."""
    tool_calls: Annotated[list[Called], Field(max_length=MOST_TOOLS)] | None = None
    tool_call_id: ShortText | None = None
    refusal: Annotated[Any, Neutral()] = None
    annotations: Annotated[Any, Neutral([])] = None
    audio: Annotated[Any, Neutral(why="is not supported: the models write text only")] = None
    function_call: Annotated[Any, Neutral(why="is not supported: tool_calls took its place")] = None
    parsed: Any = None
    """The content once more, as the package openai gives back what it has parsed."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("content", "a message without tool calls needs content")
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("tool_calls", "only messages of the assistant have tool_calls")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise PydanticCustomError("tool_call_id", "messages with the role tool, and no others, have a tool_call_id")
        return self

    def message(self) -> calls.ChatMessage:
        """Return the message as it is in a call."""
        content = self.content or ""
        return calls.ChatMessage(
            role="system" if self.role == "developer" else self.role,
            content=content if isinstance(content, str) else "".join(part.words for part in content),
            tool_calls=tuple(
                calls.ToolCall(id=each.id, name=each.function.name, arguments=each.function.arguments)
                for each in self.tool_calls or ()
            ),
            tool_call_id=self.tool_call_id,
        )


class Function(Request):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_schema(self.parameters)
        return self


class FunctionTool(Request):
    """A tool: a function, because there are no others."""

    type: Literal["function"]
    function: Function

    def tool(self) -> calls.Tool:
        """Return the tool as it is in a call."""
        function = self.function
        return calls.Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=bool(function.strict),
        )


class NamedFunction(Request):
    """The name of a function."""

    name: ShortText


class NamedTool(Request):
    """The tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class Schema(Request):
    """The schema of an answer."""

    name: ShortText
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Request):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError("format", "json_schema is stated with the type json_schema, and only there")
        if self.json_schema is not None:
            check_schema(self.json_schema.schema_)
        return self

    @property
    def schema_text(self) -> str | None:
        """The schema as text, if there is one."""
        return None if self.json_schema is None else check_schema(self.json_schema.schema_ or {})


class ChatRequest(Sampling):
    """The parameters of ``/v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, ShortText] | None = None
    """Accepted without effect, as the next three: they are for OpenAI's own records and caches."""
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: ShortText | None = None
    store: Annotated[Any, Neutral(False, why="is not supported: nothing is stored")] = None
    service_tier: Annotated[Any, Neutral("auto", "default")] = None
    modalities: Annotated[Any, Neutral(["text"], why="is not supported: the models write text only")] = None
    audio: Annotated[Any, Neutral(why="is not supported: the models write text only")] = None
    prediction: Annotated[Any, Neutral()] = None
    reasoning_effort: Annotated[Any, Neutral("none", why="is not supported: the models do not reason apart")] = None
    verbosity: Annotated[Any, Neutral("medium")] = None
    web_search_options: Annotated[Any, Neutral(why="is not supported: the server asks nothing of the network")] = None
    functions: Annotated[Any, Neutral(why="is not supported: tools took its place")] = None
    function_call: Annotated[Any, Neutral(why="is not supported: tool_choice took its place")] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise invalid("max_tokens", "max_tokens and max_completion_tokens differ")
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs", "top_logprobs needs logprobs")
        if isinstance(self.tool_choice, NamedTool):
            wanted = self.tool_choice.function.name
            if all(tool.function.name != wanted for tool in self.tools or ()):
                raise invalid("tool_choice", "tool_choice names no function of tools")
        elif self.tool_choice == "required" and not self.tools:
            raise invalid("tool_choice", "tool_choice needs tools")
        return self

    def call(self) -> calls.ChatCall:
        """Return the call."""
        form = self.response_format
        return calls.ChatCall(
            **self.sampling(),
            messages=tuple(message.message() for message in self.messages),
            max_new_tokens=self.max_completion_tokens or self.max_tokens,
            tools=tuple(tool.tool() for tool in self.tools or ()),
            tool_choice=_choice(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            json_schema=None if form is None else form.schema_text,
            json_object=form is not None and form.type == "json_object",
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs or 0,
        )


def _choice(given: str | NamedTool | None) -> calls.ToolChoice:
    if isinstance(given, NamedTool):
        return calls.ToolChoice(mode="named", name=given.function.name)
    return calls.ToolChoice(mode=given or "auto")
