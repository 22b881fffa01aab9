"""Stop strings: where an answer ends by its text."""

from __future__ import annotations

from collections.abc import Iterable

from phi3_core.errors import UsageError


class StopStrings:
    """Lets text through up to the first stop string in it, however the text is cut into pieces.

    What comes out is the text before the leftmost occurrence of any of ``strings``. The end of the text so far
    is held back only while it may still turn out to be the beginning of a stop string.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = tuple(dict.fromkeys(strings))
        if "" in self._strings:
            raise UsageError("a stop string is empty", hint="leave it out, or give at least one character")
        self._beginnings = {string[:length] for string in self._strings for length in range(1, len(string))}
        self._longest = max(map(len, self._strings), default=0)
        self._held = ""
        self.found = False
        """Whether a stop string was found; also set by :meth:`finish`."""

    def push(self, text: str) -> tuple[str, bool]:
        """Take the next piece; return what can be shown of the text and whether it has ended."""
        if self.found:
            return "", True
        text = self._held + text
        match = self._leftmost(text)
        open_end = self._open_end(text)
        # An open beginning to the left of a match would be the leftmost occurrence if it were completed.
        self.found = match <= open_end and match < len(text)
        shown = min(match, open_end)
        self._held = "" if self.found else text[shown:]
        return text[:shown], self.found

    def finish(self) -> str:
        """Return what was held back, now that nothing follows."""
        text, self._held = self._held, ""
        match = self._leftmost(text)
        self.found = self.found or match < len(text)
        return text[:match]

    def _leftmost(self, text: str) -> int:
        """Return where the leftmost stop string begins, or the length of ``text``."""
        return min((place for place in map(text.find, self._strings) if place >= 0), default=len(text))

    def _open_end(self, text: str) -> int:
        """Return where the longest end of ``text`` begins that a stop string begins with, or the length of ``text``."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
