"""The control tokens that models such as Phi-4-mini were trained to read and call tools with.

Phi-4-mini's template writes a system message as ``<|system|>TEXT<|tool|>DEFINITIONS<|/tool|><|end|>``. It has no place
for calls and results, but there are tokens for both: ``<|tool_call|>CALLS<|/tool_call|>`` in the assistant's message,
and the role ``tool_response``. Definitions, calls and results are others' text: only what is around them is control
tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from phi3_core.errors import UsageError

DEFINITIONS = "<|tool|>", "<|/tool|>"
CALLS = "<|tool_call|>", "<|/tool_call|>"
_RESULT_ROLE = "tool_response"
TOKENS = (*DEFINITIONS, *CALLS, f"<|{_RESULT_ROLE}|>")
_PLACES = {"tools": ("system", DEFINITIONS), "tool_calls": ("assistant", CALLS)}
"""Keys of messages: the role that may have each, and the tokens around its text."""

Marked = tuple[int, str, tuple[str, str]]
"""A text that follows the content of a message: the message's place, the text, and the tokens around it."""


def has_tokens(added: Collection[str], template: str) -> bool:
    """Return whether a model with these added tokens and this template reads tools in this form."""
    return all(token in added for token in TOKENS) and DEFINITIONS[0] in template


def marked_texts(messages: Sequence[Mapping[str, Any]], *, has_form: bool) -> list[Marked]:
    """Return the texts of tools and calls in ``messages``.

    Raises:
        UsageError: one is not text, or in a message of another role, or the model has no place for it.
    """
    found: list[Marked] = []
    for place, message in enumerate(messages):
        for key, (role, tokens) in _PLACES.items():
            text = message.get(key)
            if text is None:
                continue
            if not isinstance(text, str) or message["role"] != role:
                raise UsageError(
                    f"message {place + 1} has {key} that are not text of a message of the role {role}",
                    hint=f"{key} are JSON text in a message of the role {role}",
                )
            if not has_form:
                raise UsageError(
                    f"the model's chat template has no place for the {key} of message {place + 1}",
                    hint="write them into the content of the message",
                )
            found.append((place, text, tokens))
    return found


def template_role(role: str, *, has_form: bool) -> str:
    """Return the role that the template writes for ``role``."""
    return _RESULT_ROLE if has_form and role == "tool" else role
