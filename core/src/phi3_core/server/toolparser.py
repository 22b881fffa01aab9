"""Tool calls in the text of an answer, found while it is generated.

Models write calls as a JSON list, ``[{"name": "…", "arguments": {…}}]``, or a single one as an object: after
``<|tool_call|>``, as Phi-4-mini was trained to; after ``<tool_call>``, as models without a form of their own are told
to; or at the beginning of the answer with nothing before it, as Phi-4-mini sometimes does and guided answers always do.
Calls are given out when their list is whole. What turns out not to be calls, or to call an unknown function, is text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator
from typing import Any

from phi3_core.textfiles import lone_surrogate

from .calls import TextDelta, ToolCallDelta

MAX_DEPTH = 64
"""Objects and lists inside each other in a call."""
_ENDS = {"<|tool_call|>": "<|/tool_call|>", "<tool_call>": "</tool_call>"}
"""What stands before calls and after them."""
_BEGINNINGS = ('{"name":', '{"type":"function",', '{"arguments":')
"""How a call without anything before it begins, white space left out."""
_STRUCTURE = re.compile(r'["\\{}\[\]]')


class ToolCallParser:
    """Splits the text of an answer into text and calls.

    Args:
        names: the functions that may be called; without any, all is text, and nothing is held back.
        most: the number of calls after which the others are left out; None for any number.
        choice: which of the answers to a request this is, for the events.
    """

    def __init__(self, names: Collection[str], *, most: int | None = None, choice: int = 0) -> None:
        self._names = frozenset(names)
        self._most = most
        self._choice = choice
        self._held = ""
        """Text that may be, or begin, a call."""
        self._marker: str | None = None
        """What stands before the calls in ``_held``; empty for nothing, None outside of calls."""
        self._value = _Value()
        self._after: str | None = None
        """What may end the calls that were just read."""
        self._blank = ""
        """White space that is text if more text follows."""
        self._begun = False
        """Whether there was text or a call."""
        self._said = False
        """Whether there was text."""
        self.count = 0
        """The number of calls so far."""

    def push(self, text: str) -> Iterator[TextDelta | ToolCallDelta]:
        """Add more of the answer, and yield what is certain now."""
        if not self._names:
            yield from [TextDelta(text=text, choice=self._choice)] if text else []
            return
        self._held += text
        while (event := self._advance()) is not None:
            yield from event

    def finish(self) -> Iterator[TextDelta | ToolCallDelta]:
        """End the answer: what was held back is text. Calls that are not whole are."""
        rest = (self._marker or "") + self._held
        self._held, self._marker = "", None
        if self._after is not None and _ENDS.get(self._after, "").startswith(rest.strip()):
            return
        yield from self._text(rest, last=True)

    def _advance(self) -> list[TextDelta | ToolCallDelta] | None:
        """Return the next events, which may be none; None if more text is needed first."""
        if self._marker is not None:
            return self._read_calls(self._marker)
        if self._after is not None:
            return self._skip_end(self._after)
        return self._find()

    # --- outside of calls -----------------------------------------------------------------------------------------

    def _find(self) -> list[TextDelta | ToolCallDelta] | None:
        if not self._begun and self._may_begin_bare():
            if _compact(self._held).removeprefix("[").startswith(_BEGINNINGS):
                self._begin("")
                return []
            return None
        places = {marker: self._held.find(marker) for marker in _ENDS}
        found = [(place, marker) for marker, place in places.items() if place >= 0]
        if found:
            place, marker = min(found)
            before = self._show(place)
            self._held = self._held[len(marker) :]
            self._begin(marker)
            return before
        held = _open_end(self._held)
        return self._show(len(self._held) - held) or None

    def _may_begin_bare(self) -> bool:
        """Return whether the answer so far may be the beginning of calls with nothing before them."""
        compact = _compact(self._held)
        return any(
            start.startswith(compact) or compact.startswith(start)
            for beginning in _BEGINNINGS
            for start in (beginning, "[" + beginning)
        )

    def _begin(self, marker: str) -> None:
        self._marker, self._value = marker, _Value()

    def _show(self, length: int) -> list[TextDelta | ToolCallDelta]:
        """Return so much of what is held back as text."""
        text, self._held = self._held[:length], self._held[length:]
        return self._text(text)

    def _text(self, text: str, *, last: bool = False) -> list[TextDelta | ToolCallDelta]:
        text = self._blank + text
        if self.count and not self._said:
            text = text.lstrip()
        shown = text if last and not self.count else text.rstrip()
        self._blank = text[len(shown) :]
        if not shown:
            return []
        self._begun = self._said = True
        return [TextDelta(text=shown, choice=self._choice)]

    # --- calls ----------------------------------------------------------------------------------------------------

    def _read_calls(self, marker: str) -> list[TextDelta | ToolCallDelta] | None:
        end = self._value.end(self._held)
        if end is None:
            return None
        calls = self._calls(self._held[:end]) if end else None
        if calls is None:  # the text up to here, so that a call after it is found
            self._marker, self._begun = None, True
            broken, self._held = self._held[: end or 1], self._held[end or 1 :]
            return self._text(marker + broken)
        self._held, self._marker, self._after = self._held[end:], None, marker
        self._blank, self._begun = "", True
        return [event for call in calls if (event := self._event(call)) is not None]

    def _event(self, call: tuple[str, str]) -> ToolCallDelta | None:
        if self._most is not None and self.count >= self._most:
            return None
        self.count += 1
        name, arguments = call
        return ToolCallDelta(
            index=self.count - 1, id=new_call_id(), name=name, arguments=arguments, choice=self._choice
        )

    def _skip_end(self, marker: str) -> list[TextDelta | ToolCallDelta] | None:
        """Skip what ends calls; another list or object right before it belongs to the calls."""
        rest = self._held.lstrip()
        end = _ENDS.get(marker, "")
        if not rest or (end and end.startswith(rest) and rest != end):
            return None
        self._after = None
        if end and rest.startswith(end):
            self._held = rest[len(end) :]
        elif rest[0] in "[{" and end:
            self._held = rest
            self._begin(marker)
        return []

    def _calls(self, text: str) -> list[tuple[str, str]] | None:
        """Return the names and the arguments in a JSON document; None if it does not consist of calls."""
        try:
            value = json.loads(text, parse_constant=_refuse)
            found = [self._call(item) for item in (value if isinstance(value, list) else [value])]
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
            return None
        return found or None

    def _call(self, item: Any) -> tuple[str, str]:
        given = item.get("function", item)
        name = given["name"]
        arguments = given.get("arguments", given.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "{}", parse_constant=_refuse)
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        if name not in self._names or not isinstance(arguments, dict) or lone_surrogate(text) is not None:
            raise ValueError(text)
        return name, text


class _Value:
    """Finds the end of a JSON list or object in text that grows, looking at each character once."""

    def __init__(self) -> None:
        self._depth = 0
        self._place = 0
        self._in_string = False

    def end(self, text: str) -> int | None:
        """Return where the value ends, 0 if it is not one, None if ``text`` does not hold all of it."""
        if self._depth == 0:
            start = len(text) - len(text.lstrip())
            if start == len(text):
                return None
            if text[start] not in "[{":
                return 0
            self._depth, self._place = 1, start + 1
        while (found := _STRUCTURE.search(text, self._place)) is not None:
            self._place = found.end()
            self._read(found[0])
            if not 0 < self._depth <= MAX_DEPTH:
                return self._place
        self._place = max(self._place, len(text))
        return None

    def _read(self, character: str) -> None:
        if character == '"':
            self._in_string = not self._in_string
        elif character == "\\":
            self._place += self._in_string  # what it escapes, which may not be there yet
        elif not self._in_string:
            self._depth += 1 if character in "[{" else -1


def new_call_id(prefix: str = "call_") -> str:
    """Return an id that no other call has."""
    return prefix + secrets.token_hex(12)


def _compact(text: str) -> str:
    """Return the beginning of ``text`` without white space."""
    return "".join(text[:256].split())


def _open_end(text: str) -> int:
    """Return the length of the longest end of ``text`` that may begin a marker."""
    return max(
        (length for marker in _ENDS for length in range(1, len(marker)) if text.endswith(marker[:length])), default=0
    )


def _refuse(constant: str) -> Any:
    raise ValueError(constant)
