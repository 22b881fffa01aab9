"""Tools: what the model is told of them, and what an answer that has to call one looks like.

Models with the form of Phi-4-mini (``text/toolmarks.py``) get definitions, calls and results in it. All others get them
as text: definitions and how to call in the system message, results in a user message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from phi3_core.errors import UsageError
from phi3_core.replies import Message

from .calls import ChatCall, ChatMessage, Tool, ToolCall
from .schemas import DATA, NAMED_SCHEMAS, check_schema

MAX_TOOLS = 128
MAX_CALLS = 16
"""Calls in one answer that has to call: without a bound a small model may never end its list."""
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_ASSISTANT = "You are a helpful assistant with some tools."
_INSTRUCTIONS = """\
You can call these functions. The parameters of each are a JSON schema:
<tools>
{definitions}
</tools>
If the answer needs functions, call them by a JSON list between these tags, and write nothing else:
<tool_call>
[{{"name": "the function's name", "arguments": {{"parameter": "value"}}}}]
</tool_call>
If it does not, answer in plain text."""


def shown_tools(call: ChatCall) -> tuple[Tool, ...]:
    """Return the tools that the model gets to see: none with the choice ``none``."""
    return () if call.tool_choice.mode == "none" else call.tools


def has_to_call(call: ChatCall) -> bool:
    """Return whether the answer has to consist of calls."""
    return call.tool_choice.mode in {"required", "named"}


def check_tools(call: ChatCall) -> None:
    """Check that the tools of a call can be told apart, and that there are those that have to be called.

    Raises:
        UsageError: they cannot, or a schema is too large.
    """
    names = [tool.name for tool in call.tools]
    if len(names) > MAX_TOOLS:
        raise UsageError(f"there are {len(names)} tools", hint=f"at most {MAX_TOOLS} are allowed")
    if wrong := [name for name in names if not _NAME.fullmatch(name)]:
        raise UsageError(
            f"a function has the name {wrong[0][:80]!r}",
            hint="names are 1 to 64 letters, digits, underscores and dashes",
        )
    if len(set(names)) < len(names):
        raise UsageError("two functions have the same name", hint="give each function a name of its own")
    for tool in call.tools:
        check_schema(tool.parameters, f"the schema of the function {tool.name}")
        if tool.parameters.get("type", "object") != "object":
            raise UsageError(
                f"the schema of the function {tool.name} is not that of an object",
                hint='its type is "object"',
            )
    if has_to_call(call) and not call.tools:
        raise UsageError("tool_choice asks for a call, and there are no tools", hint="add tools")
    wanted = call.tool_choice.name
    if call.tool_choice.mode == "named" and wanted not in names:
        raise UsageError(f"tool_choice names {str(wanted)[:80]!r}, which is none of the tools", hint="name one of them")
    if has_to_call(call) and (call.json_schema is not None or call.json_object):
        raise UsageError(
            "the answer cannot both call a tool and be JSON of another form",
            hint="leave out the response format, or set tool_choice to auto",
        )


def write_messages(call: ChatCall, *, native: bool) -> list[Message]:
    """Return the messages of a call for :class:`~phi3_core.model.Model`, with its tools.

    Args:
        call: the call, whose tools were checked.
        native: whether the model takes the keys ``tools`` and ``tool_calls`` and the role ``tool``.

    Raises:
        UsageError: results and calls do not match.
    """
    written: list[dict[str, str]] = []
    messages = call.messages
    place = 0
    while place < len(messages):
        message = messages[place]
        place += 1
        if message.role == "tool":
            raise UsageError(
                "a tool's result does not follow the message that called the tool",
                hint="put results right after the assistant's message with their calls",
            )
        written.append(_plain(message, native=native))
        if message.tool_calls:
            end = place
            while end < len(messages) and messages[end].role == "tool":
                end += 1
            written += _results(message.tool_calls, messages[place:end], native=native)
            place = end
    tools = shown_tools(call)
    return list(_with_definitions(written, tools, call, native=native) if tools else written)


def _plain(message: ChatMessage, *, native: bool) -> dict[str, str]:
    if not message.tool_calls:
        return {"role": message.role, "content": message.content}
    calls = _json([{"name": call.name, "arguments": _value(call)} for call in message.tool_calls])
    if native:
        return {"role": message.role, "content": message.content, "tool_calls": calls}
    before = f"{message.content}\n" if message.content else ""
    return {"role": message.role, "content": f"{before}<tool_call>\n{calls}\n</tool_call>"}


def _value(call: ToolCall) -> Any:
    """Return the arguments of a call; text that is no JSON stays text."""
    try:
        return json.loads(call.arguments)
    except (ValueError, RecursionError):
        return call.arguments


def _results(calls: Sequence[ToolCall], results: Sequence[ChatMessage], *, native: bool) -> list[dict[str, str]]:
    """Return the messages with the results of calls, in the order of the calls."""
    by_id = {message.tool_call_id: message for message in results}
    ids = [call.id for call in calls]
    if missing := [number for number in ids if number not in by_id]:
        raise UsageError(
            f"the call {missing[0][:80]!r} has no result after it", hint="each call needs a message with its result"
        )
    if len(results) > len(set(ids)) or len(set(ids)) < len(ids):
        raise UsageError(
            "results of tools do not match the calls before them",
            hint="calls have different ids, and each has one result with its id",
        )
    if native:
        return [{"role": "tool", "content": by_id[call.id].content} for call in calls]
    parts = [_json({"name": call.name, "result": by_id[call.id].content}) for call in calls]
    return [{"role": "user", "content": "\n".join(f"<tool_response>\n{part}\n</tool_response>" for part in parts)}]


def _with_definitions(
    messages: list[dict[str, str]], tools: Sequence[Tool], call: ChatCall, *, native: bool
) -> list[dict[str, str]]:
    definitions = [
        {"name": tool.name, "description": tool.description, "parameters": dict(_parameters(tool))} for tool in tools
    ]
    if not messages or messages[0]["role"] != "system":
        messages = [{"role": "system", "content": _ASSISTANT if native else ""}, *messages]
    first, rest = messages[0], messages[1:]
    if native:
        return [{**first, "tools": _json(definitions)}, *rest]
    text = _INSTRUCTIONS.format(definitions="\n".join(map(_json, definitions)))
    if has_to_call(call):
        wanted = call.tool_choice.name
        text += f"\nCall {f'the function {wanted}' if wanted else 'at least one function'} now."
    return [{**first, "content": "\n\n".join(filter(None, (first["content"], text)))}, *rest]


def _parameters(tool: Tool) -> Mapping[str, Any]:
    return tool.parameters or _NO_ARGUMENTS


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def calls_schema(call: ChatCall) -> str:
    """Return the JSON schema, as text, of an answer that has to call tools.

    The parameters of each function are kept whole; their references to themselves lead to where they are now.
    """
    allowed = [tool for tool in call.tools if call.tool_choice.name in {None, tool.name}]
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": {"$ref": f"#/$defs/{tool.name}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in allowed
    ]
    several = call.parallel_tool_calls and call.tool_choice.mode == "required"
    return _json(
        {
            "$defs": {tool.name: _moved(_parameters(tool), f"#/$defs/{tool.name}") for tool in allowed},
            "type": "array",
            "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
            "minItems": 1,
            "maxItems": MAX_CALLS if several else 1,
        }
    )


def _moved(schema: Any, root: str, *, named: bool = False) -> Any:
    """Return a schema whose references to itself, which start with ``#``, start with ``root``."""
    if isinstance(schema, list):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if not named and key == "$ref" and isinstance(value, str):
            moved[key] = root + value[1:]
        elif not named and key in DATA:
            moved[key] = value
        else:
            moved[key] = _moved(value, root, named=not named and key in NAMED_SCHEMAS)
    return moved
