"""Requests to ``/v1/responses``, as calls.

Nothing is kept between requests, so what refers to something kept is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from . import calls
from .requests import (
    MOST_MESSAGES,
    MOST_TOOLS,
    MaxTokens,
    Neutral,
    Request,
    ShortText,
    Temperature,
    Text,
    TopP,
    check_schema,
    invalid,
    nucleus,
    refused,
)
from .responses_format import TextOptions

_NOT_KEPT = "is not supported: nothing is kept between requests"


_LOGPROBS = "message.output_text.logprobs"
# The models do not reason apart, so there is nothing of it to add.
_INCLUDED = {_LOGPROBS, "reasoning.encrypted_content"}


def _check_include(wanted: list[str]) -> list[str]:
    if unknown := [each for each in wanted if each not in _INCLUDED]:
        raise refused(f"is not supported with {unknown[0]!r}")
    return wanted


def _kind(value: Any) -> str:
    """Return the type of an item, which messages may leave out."""
    return str(value.get("type", "message")) if isinstance(value, dict) else "message"


class TextPart(Request):
    """Text of a message or a result."""

    type: Literal["input_text", "output_text", "text"]
    text: Text
    annotations: Annotated[Any, Neutral([])] = None
    logprobs: Any = None
    """Of an answer that is given back. Accepted without effect."""
    parsed: Any = None
    """The text once more, as the package openai gives back what it has parsed."""

    @property
    def words(self) -> str:
        """The text of the part."""
        return self.text


class RefusalPart(Request):
    """What an earlier answer refused."""

    type: Literal["refusal"]
    refusal: Text

    @property
    def words(self) -> str:
        """The text of the part."""
        return self.refusal


def _part_kind(value: Any) -> str:
    kind = _kind(value)
    return "text" if kind in {"input_text", "output_text"} else kind


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[RefusalPart, Tag("refusal")],
    Discriminator(
        _part_kind, custom_error_type="refused", custom_error_message="is not supported: the models read text only"
    ),
]
Content = Text | Annotated[list[Part], Field(max_length=MOST_MESSAGES)]


class MessageItem(Request):
    """A message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: ShortText | None = None
    status: ShortText | None = None
    phase: ShortText | None = None


class CallItem(Request):
    """A call that an earlier answer made."""

    type: Literal["function_call"]
    call_id: ShortText
    name: ShortText
    arguments: Text
    parsed_arguments: Any = None
    """The arguments once more, as the package openai gives back what it has parsed."""
    id: ShortText | None = None
    status: ShortText | None = None


class ResultItem(Request):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: ShortText
    output: Content
    id: ShortText | None = None
    status: ShortText | None = None


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(
        _kind,
        custom_error_type="refused",
        custom_error_message="is not supported: items are messages, function calls and their outputs",
    ),
]


class FunctionTool(Request):
    """A tool: a function, because there are no others."""

    type: Literal["function"]
    name: ShortText
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_schema(self.parameters or {})
        return self

    def tool(self) -> calls.Tool:
        """Return the tool as it is in a call."""
        return calls.Tool(
            name=self.name,
            description=self.description or "",
            parameters=self.parameters or {},
            strict=bool(self.strict),
        )


class NamedTool(Request):
    """The tool that the model must call."""

    type: Literal["function"]
    name: ShortText


class AllowedTools(Request):
    """The tools that the model may call."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(max_length=MOST_TOOLS)]


class Reasoning(Request):
    """How a model reasons before it answers."""

    effort: Annotated[Any, Neutral("none", why="is not supported: the models do not reason apart")] = None
    summary: Annotated[Any, Neutral(why="is not supported: the models do not reason apart")] = None
    generate_summary: Annotated[Any, Neutral(why="is not supported: the models do not reason apart")] = None


class StreamOptions(Request):
    """How a stream is written."""

    include_obfuscation: Annotated[Any, Neutral(False)] = None


class ResponsesRequest(Request):
    """The parameters of ``/v1/responses``."""

    model: ShortText
    input: Text | Annotated[list[Item], Field(min_length=1, max_length=MOST_MESSAGES)]
    instructions: Text | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, ShortText] | None = None
    """Accepted without effect, as the next four: they are for OpenAI's own records and caches."""
    user: ShortText | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: ShortText | None = None
    store: Annotated[Any, Neutral(False, why="is not supported: nothing is stored; send false")] = None
    background: Annotated[Any, Neutral(False, why=_NOT_KEPT)] = None
    previous_response_id: Annotated[Any, Neutral(why=_NOT_KEPT)] = None
    conversation: Annotated[Any, Neutral(why=_NOT_KEPT)] = None
    prompt: Annotated[Any, Neutral(why=_NOT_KEPT)] = None
    include: Annotated[list[ShortText], AfterValidator(_check_include)] | None = None
    reasoning: Reasoning | None = None
    max_tool_calls: Annotated[Any, Neutral(why="is not supported: the server runs no tools")] = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    service_tier: Annotated[Any, Neutral("auto", "default")] = None
    truncation: Annotated[Any, Neutral("disabled")] = None
    context_management: Annotated[Any, Neutral()] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_logprobs and not self.includes_logprobs:
            raise invalid("top_logprobs", "top_logprobs needs {name} in include", name=_LOGPROBS)
        return self

    def call(self) -> calls.ChatCall:
        """Return the call.

        Raises:
            PydanticCustomError: a parameter has an invalid value.
        """
        tools = [tool.tool() for tool in self.tools or ()]
        choice = self.tool_choice
        if isinstance(choice, AllowedTools):
            allowed = {tool.name for tool in choice.tools}
            tools = [tool for tool in tools if tool.name in allowed]
            choice = choice.mode if tools else "none"
        form = self.text.format if self.text else None
        return calls.ChatCall(
            model=self.model,
            messages=tuple(self._messages()),
            max_new_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=nucleus(self.top_p),
            tools=tuple(tools),
            tool_choice=calls.ToolChoice(mode="named", name=choice.name)
            if isinstance(choice, NamedTool)
            else calls.ToolChoice(mode=choice or "auto"),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            json_schema=check_schema(form.schema_) if form and form.schema_ is not None else None,
            json_object=form is not None and form.type == "json_object",
            schema_parameter="text.format",
            logprobs=self.includes_logprobs,
            top_logprobs=self.top_logprobs or 0,
            logprobs_parameter="include",
        )

    @property
    def includes_logprobs(self) -> bool:
        """Whether the text comes with its tokens' logarithmic probabilities."""
        return _LOGPROBS in (self.include or ())

    def _messages(self) -> list[calls.ChatMessage]:
        """Return the conversation. Calls that follow each other, and the text right before them, are one message."""
        found = [calls.ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*found, calls.ChatMessage(role="user", content=self.input)]
        instructions = len(found)
        for item in self.input:
            if isinstance(item, CallItem):
                call = calls.ToolCall(id=item.call_id, name=item.name, arguments=item.arguments)
                joins = len(found) > instructions and found[-1].role == "assistant"
                before = found.pop() if joins else calls.ChatMessage(role="assistant")
                made = (*before.tool_calls, call)
                found.append(calls.ChatMessage(role="assistant", content=before.content, tool_calls=made))
            elif isinstance(item, ResultItem):
                found.append(calls.ChatMessage(role="tool", content=_words(item.output), tool_call_id=item.call_id))
            else:
                role = "system" if item.role == "developer" else item.role
                found.append(calls.ChatMessage(role=role, content=_words(item.content)))
        return found


def _words(content: str | list[TextPart | RefusalPart]) -> str:
    return content if isinstance(content, str) else "".join(part.words for part in content)
