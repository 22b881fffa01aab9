"""Disarmed text that a chat template sees as the text it was.

Templates look into messages: those of reasoning models cut earlier thoughts out at ``</think>``, which may be a control
token. The separators that disarm such a string must not hide it from the template, and have to stay in the text that
the template passes on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

from attrs import frozen

if TYPE_CHECKING:
    from typing_extensions import Self


@frozen
class Marks:
    """Characters that do not occur in the text."""

    separator: str
    """Splits the strings of tokens."""
    stand_ins: dict[str, str]
    """The replacements of tokens of one character, which cannot be split."""

    def without(self, text: str) -> str:
        """Return ``text`` as it was before it was disarmed."""
        originals: dict[int, str | None] = {ord(new): old for old, new in self.stand_ins.items()}
        return str.translate(text, {ord(self.separator): None, **originals})


class DisarmedText(str):
    """A string with marks, whose methods search, compare, cut and measure the text without them.

    What a method returns of the text has its marks. Operations that are not defined here see the marks, and keep them.
    """

    __slots__ = ("_places", "marks", "plain")
    marks: Marks
    plain: str
    """The text without marks."""
    _places: list[int]
    """The positions of the separators in the plain text."""

    def __new__(cls, text: str, marks: Marks) -> Self:
        """Return ``text``, which contains ``marks``."""
        made = super().__new__(cls, text)
        made.marks = marks
        made.plain = marks.without(text)
        separated = str.split(text, marks.separator)
        made._places, length = [], 0
        for part in separated[:-1]:
            length += len(part)
            made._places.append(length)
        return made

    def _again(self, text: str) -> DisarmedText:
        return DisarmedText(text, self.marks)

    def _cut(self, start: int, end: int) -> DisarmedText:
        """Return the part between two positions of the plain text, with the separators at both of its ends."""
        if start >= end:
            return self._again("")
        places = self._places
        return self._again(
            super().__getitem__(slice(start + bisect_left(places, start), end + bisect_right(places, end)))
        )

    def __str__(self) -> DisarmedText:
        return self

    def __len__(self) -> int:
        return len(self.plain)

    def __eq__(self, other: object) -> bool:
        return bool(self.plain == _plain(other))

    def __ne__(self, other: object) -> bool:
        return bool(self.plain != _plain(other))

    def __hash__(self) -> int:
        return hash(self.plain)

    def __contains__(self, part: object) -> bool:
        return bool(_plain(part) in self.plain)

    def __iter__(self) -> Iterator[str]:
        return (self._cut(place, place + 1) for place in range(len(self.plain)))

    def __getitem__(self, key: SupportsIndex | slice) -> DisarmedText:
        places = range(len(self.plain))[key]
        if isinstance(places, int):
            return self._cut(places, places + 1)
        if places.step == 1:
            return self._cut(places.start, places.stop)
        return self._again("".join(map(self.__getitem__, places)))

    def __add__(self, other: str) -> DisarmedText:
        return self._again(super().__add__(other))

    def __radd__(self, other: str) -> DisarmedText:
        return self._again(str.__add__(other, self))

    def strip(self, characters: str | None = None, /) -> DisarmedText:
        """See ``str.strip``."""
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters: str | None = None, /) -> DisarmedText:
        """See ``str.lstrip``."""
        return self._cut(len(self.plain) - len(self.plain.lstrip(characters)), len(self.plain))

    def rstrip(self, characters: str | None = None, /) -> DisarmedText:
        """See ``str.rstrip``."""
        return self._cut(0, len(self.plain.rstrip(characters)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """See ``str.split``."""
        return self._parts(self.plain.split(_plain(sep), maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """See ``str.rsplit``."""
        return self._parts(self.plain.rsplit(_plain(sep), maxsplit), sep)

    def _parts(self, parts: Iterable[str], separator: str | None) -> list[str]:
        found: list[str] = []
        start = 0
        for part in parts:
            if separator is None:
                start = self.plain.index(part, start)
            found.append(self._cut(start, start + len(part)))
            start += len(part) + len(separator or "")
        return found

    def splitlines(self, keepends: bool = False) -> list[str]:
        """See ``str.splitlines``."""
        found: list[str] = []
        start = 0
        for line, whole in zip(self.plain.splitlines(keepends), self.plain.splitlines(keepends=True), strict=True):
            found.append(self._cut(start, start + len(line)))
            start += len(whole)
        return found

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        """See ``str.partition``."""
        before, middle, _ = self.plain.partition(_plain(sep))
        return self._three(len(before), len(before) + len(middle))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        """See ``str.rpartition``."""
        before, middle, _ = self.plain.rpartition(_plain(sep))
        return self._three(len(before), len(before) + len(middle))

    def _three(self, start: int, end: int) -> tuple[str, str, str]:
        return self._cut(0, start), self._cut(start, end), self._cut(end, len(self.plain))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> DisarmedText:
        """See ``str.replace``."""
        if not old:
            return self._again(str.replace(self, old, new, count))
        return self._again(str.join(new, self.split(old, count)))

    def removeprefix(self, prefix: str, /) -> DisarmedText:
        """See ``str.removeprefix``."""
        return self._cut(len(self.plain) - len(self.plain.removeprefix(_plain(prefix))), len(self.plain))

    def removesuffix(self, suffix: str, /) -> DisarmedText:
        """See ``str.removesuffix``."""
        return self._cut(0, len(self.plain.removesuffix(_plain(suffix))))


def _plain(value: Any) -> Any:
    """Return the text that a :class:`DisarmedText` was; anything else unchanged."""
    return value.plain if isinstance(value, DisarmedText) else value


def concat(parts: Iterable[str]) -> str:
    """Join strings; the result is a :class:`DisarmedText` if one of them is."""
    parts = list(parts)
    text = "".join(parts)
    marks = next((part.marks for part in parts if isinstance(part, DisarmedText)), None)
    return text if marks is None else DisarmedText(text, marks)


def _of_plain_text(name: str) -> Callable[..., Any]:
    def method(self: DisarmedText, *arguments: Any) -> Any:
        given = (tuple(map(_plain, each)) if isinstance(each, tuple) else _plain(each) for each in arguments)
        return getattr(self.plain, name)(*given)

    return method


def _of_marked_text(name: str) -> Callable[[DisarmedText], DisarmedText]:
    def method(self: DisarmedText) -> DisarmedText:
        return self._again(getattr(str, name)(self))

    return method


for _name in (
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "startswith",
    "endswith",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
):
    setattr(DisarmedText, _name, _of_plain_text(_name))
for _name in [name for name in dir(str) if name.startswith("is")]:
    setattr(DisarmedText, _name, _of_plain_text(_name))
for _name in ("lower", "upper", "casefold", "swapcase", "title", "capitalize"):
    setattr(DisarmedText, _name, _of_marked_text(_name))
