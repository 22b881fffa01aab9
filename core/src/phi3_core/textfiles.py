"""Decode text from files and streams of the user, whatever program has written it."""

from __future__ import annotations

import codecs
from pathlib import Path

from .disk import reason
from .errors import UsageError
from .units import format_bytes

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LOOKED_AT = 4096

MOST_BYTES = 2**25
"""Size limit of a text: 131,072 tokens, the longest context of the Phi-3 family, of 256 bytes each."""


def encoding_of(data: bytes) -> tuple[str, int]:
    """Return the encoding of a text by its first bytes, and the length of its byte-order mark.

    UTF-16 without a mark is recognized by the zero bytes of its ASCII characters. Everything else is UTF-8, which may
    turn out to be wrong.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    start = data[: min(len(data) // 2 * 2, _LOOKED_AT)]
    for encoding, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if zeros and zeros.count(0) > 0.7 * len(zeros) and others.count(0) == 0:
            return encoding, 0
    return "utf-8", 0


def decode_marked(data: bytes) -> str:
    """Return a text in the encoding of :func:`encoding_of`, without the mark. Raises UnicodeDecodeError."""
    encoding, mark = encoding_of(data)
    return data[mark:].decode(encoding)


def lone_surrogate(text: str) -> str | None:
    r"""Return the first half of a surrogate pair in a text, escaped; None if there is none.

    JSON and templates can spell one as ``\ud800``, and arguments and names of files have them for bytes that are not
    text. No encoding has a form for it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return ascii(text[error.start])[1:-1]
    return None


def decode(data: bytes, what: str, *, fallback: str | None = None) -> str:
    """Return a text with line feeds as line ends.

    Args:
        data: UTF-8, or UTF-16 or UTF-32 with a byte-order mark, or UTF-16 of mostly ASCII characters.
        what: the text, as the subject of the error message.
        fallback: the encoding of a text that is none of these, if known.

    Raises:
        UsageError: the encoding is another one, or the data are not text.
    """
    try:
        text = decode_marked(data)
    except UnicodeDecodeError as error:
        encoding, mark = encoding_of(data)
        if not mark and b"\0" in data:
            raise UsageError(f"{what} is not text: it has zero bytes", hint="save it as UTF-8") from error
        if fallback is None or encoding != "utf-8":
            raise UsageError(f"{what} is not {encoding.upper()}: {error.reason}", hint="save it as UTF-8") from error
        text = data.decode(fallback, "replace")
    if "\0" in text:
        raise UsageError(f"{what} is not text: it has zero bytes", hint="save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def check_size(data: bytes | str, what: str) -> None:
    """Check that a text of which :data:`MOST_BYTES` and one more were read has no more than that.

    Raises:
        UsageError: it has.
    """
    if len(data) > MOST_BYTES:
        raise UsageError(
            f"{what} has more than {format_bytes(MOST_BYTES)}, which fits no model's context", hint="give a part of it"
        )


def read(path: Path, what: str) -> str:
    """Return the text of a file, decoded by :func:`decode`.

    Raises:
        UsageError: the file cannot be read, is not text, or has more than :data:`MOST_BYTES`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{what} {path} cannot be read: {words}", hint="name a text file") from error
    check_size(data, f"{what} {path}")
    return decode(data, f"{what} {path}")
