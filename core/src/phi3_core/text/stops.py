"""Stop strings, at which the text of an answer ends."""

from __future__ import annotations

from collections.abc import Iterable

from phi3_core.errors import UsageError


class StopStrings:
    """Passes text through up to the first stop string, regardless of how the text is split into chunks.

    The result is the text before the leftmost occurrence of any of the strings. Text is held back only while it may
    be the beginning of a stop string.

    Raises:
        UsageError: a stop string is empty.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = tuple(dict.fromkeys(strings))
        if "" in self._strings:
            raise UsageError("a stop string is empty", hint="leave it out, or give at least one character")
        self._beginnings = {string[:length] for string in self._strings for length in range(1, len(string))}
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.found = False
        """Whether a stop string was found, by :meth:`push` or :meth:`finish`."""
        self.match: str | None = None
        """The stop string that was found."""

    def push(self, text: str) -> tuple[str, bool]:
        """Add a chunk, and return the text that can be shown and whether it has ended."""
        if self.found:
            return "", True
        text = self._held + text
        match = self._leftmost(text)
        open_end = self._open_end(text)
        # An incomplete stop string to the left of a match would be the leftmost one if it were completed.
        self.found = match <= open_end and match < len(text)
        self._note(text, match)
        shown = min(match, open_end)
        self._held = "" if self.found else text[shown:]
        return text[:shown], self.found

    def finish(self) -> str:
        """Return the text that was held back, up to a stop string, because no text follows."""
        text, self._held = self._held, ""
        match = self._leftmost(text)
        self.found = self.found or match < len(text)
        self._note(text, match)
        return text[:match]

    def _note(self, text: str, place: int) -> None:
        if self.found and self.match is None:
            self.match = next(string for string in self._strings if text.startswith(string, place))

    def _leftmost(self, text: str) -> int:
        """Return the position of the leftmost stop string, or the length of ``text``."""
        return min((place for place in map(text.find, self._strings) if place >= 0), default=len(text))

    def _open_end(self, text: str) -> int:
        """Return the position of the longest suffix that begins a stop string, or the length of ``text``."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
