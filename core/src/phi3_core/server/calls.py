"""What every dialect is translated to, and what it is answered from.

A dialect makes a :class:`ChatCall` of its request, and its own events of :data:`Event`. Nothing here knows of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

from phi3_core.text.logprobs import TokenLogprob

ROLES = ("system", "user", "assistant", "tool")
MOST_CHOICES = 8
"""The largest number of answers to one call."""


@frozen(kw_only=True)
class ToolCall:
    """A call of a tool that a model has made."""

    id: str
    name: str
    arguments: str
    """The arguments as JSON, or what the model wrote in their place."""


@frozen(kw_only=True)
class ChatMessage:
    """A message of a conversation."""

    role: str = field(validator=validators.in_(ROLES))
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that an assistant's message made."""
    tool_call_id: str | None = None
    """The call that a tool's message answers."""


@frozen(kw_only=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(factory=dict)
    """The JSON schema of its arguments, whole."""
    strict: bool = False


@frozen(kw_only=True)
class ToolChoice:
    """Which tools the model may or must call."""

    mode: str = field(default="auto", validator=validators.in_(("auto", "none", "required", "named")))
    name: str | None = None
    """The tool to call, with the mode ``named``."""


@frozen(kw_only=True)
class ChatCall:
    """A request for answers. What is None is left to the server's defaults."""

    model: str
    """The name of the model."""
    messages: tuple[ChatMessage, ...] = ()
    """The conversation, oldest first; empty with ``prompt``."""
    begun: str = ""
    """The beginning of the answer to ``messages``, with which it goes on and which it does not repeat."""
    prompt: str | None = None
    """Text to continue, without a chat template, in place of ``messages``."""
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    """Any integer; the answers of one call get consecutive seeds."""
    stop: tuple[str, ...] | None = None
    n: int = field(default=1, validator=validators.and_(validators.ge(1), validators.le(MOST_CHOICES)))
    """The number of answers."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(factory=ToolChoice)
    parallel_tool_calls: bool = True
    """Whether an answer may call several tools."""
    json_schema: str | None = None
    """The JSON schema, as text, that the answer follows."""
    schema_parameter: str = "response_format"
    """The name that the dialect has for what asks for JSON."""
    json_object: bool = False
    """Whether the answer is any JSON object."""
    logprobs: bool = False
    """Whether the answer comes with its tokens' logarithmic probabilities."""
    top_logprobs: int = 0
    """How many of the likeliest tokens come with each."""
    logprobs_parameter: str = "logprobs"
    """The name that the dialect has for what asks for them."""


@frozen(kw_only=True)
class Usage:
    """Number of tokens."""

    prompt_tokens: int
    completion_tokens: int

    def __add__(self, other: Usage) -> Usage:
        """Return the sum for two answers to one prompt, which counts once."""
        return Usage(
            prompt_tokens=max(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


@frozen(kw_only=True)
class TextDelta:
    """More text of an answer."""

    text: str
    choice: int = 0
    """Which of the call's answers, from 0."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """The tokens of the text, if they were asked for."""


@frozen(kw_only=True)
class ToolCallDelta:
    """The beginning of a tool call, or more of its arguments."""

    index: int
    """Which of the answer's calls, from 0."""
    arguments: str = ""
    id: str | None = None
    """Set where the call begins, as is ``name``."""
    name: str | None = None
    choice: int = 0


@frozen(kw_only=True)
class Finished:
    """The end of an answer."""

    reason: str = field(validator=validators.in_(("stop", "length", "tool_calls")))
    usage: Usage
    choice: int = 0
    stop_string: str | None = None
    """The stop string that ended the answer, if one did."""
    device: str = "none"
    """Where the answer was generated, as ``backend:device``."""
    precision: str = "none"
    time_to_first_token_s: float | None = None
    decode_tokens_per_s: float | None = None


Event = TextDelta | ToolCallDelta | Finished
"""What happens during an answer; ``Finished`` is the last one of each."""
