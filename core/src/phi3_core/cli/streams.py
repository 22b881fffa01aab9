"""The standard streams, whichever of them exist, and whoever is at their other ends."""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from phi3_core.errors import UsageError

_WAIT_S = 1.0
_NO_INPUT = "< NUL" if sys.platform == "win32" else "< /dev/null"
# Windows' C library reports a pipe whose reader is gone as an invalid argument.
_READER_GONE = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}
_NOT_WRITTEN = {errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF, getattr(errno, "EDQUOT", errno.ENOSPC)}


def prepare() -> None:
    """Replace missing streams by the null device: daemons and graphical programs start children without them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115 - for as long as the process runs
            setattr(sys, name, null)


def is_reader_gone(error: OSError) -> bool:
    """Return whether the reader of our output has closed the pipe."""
    return error.filename is None and error.errno in _READER_GONE


def is_not_written(error: OSError) -> bool:
    """Return whether our output could not be written, for example because a disk is full."""
    return error.filename is None and error.errno in _NOT_WRITTEN


def discard_output() -> None:
    """Let Python write what is left of the output to the null device; it would fail again at exit."""
    _discard(sys.stdout)


def tell(text: str, *, end: str = "\n") -> None:
    """Write to stderr. Once its reader is gone or its disk is full, nothing is written there: the answer goes on."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError as error:
        if not (is_reader_gone(error) or is_not_written(error)):
            raise
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def read_input(notice: Callable[[str], object], *, needed: bool) -> str:
    """Return all text on stdin, or nothing if it is a terminal.

    Args:
        notice: called with a sentence if nothing arrives for a second.
        needed: whether there is no other text: otherwise a stdin that is not for reading, as nohup makes it of a
            terminal, has none.

    Raises:
        UsageError: stdin cannot be read, is not text, or has more of it than any model reads.
    """
    import threading

    from phi3_core.textfiles import MOST_BYTES, check_size, decode

    if sys.stdin.isatty():
        return ""
    words = f"reading the rest of the prompt from stdin until it is closed; {_NO_INPUT} leaves it out"
    timer = threading.Timer(_WAIT_S, notice, [words])
    timer.daemon = True
    timer.start()
    try:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    except OSError as error:
        if error.errno == errno.EBADF and not needed:
            return ""
        raise _not_read(error) from error
    finally:
        timer.cancel()
    check_size(data, "the text on stdin")
    return decode(data, "the text on stdin", fallback=_console_encoding())


def input_lines() -> Iterator[str]:
    """Yield the lines on stdin as they arrive, without their ends.

    Raises:
        UsageError: stdin cannot be read or is not text, or a line is longer than any model reads.
    """
    lines = _lines()
    while True:
        try:
            line = next(lines, None)
        except OSError as error:
            raise _not_read(error) from error
        if line is None:
            return
        yield line


def _not_read(error: OSError) -> UsageError:
    from phi3_core.disk import reason
    from phi3_core.errors import UsageError

    return UsageError(f"standard input cannot be read: {reason(error)}", hint=f"{_NO_INPUT} leaves it out")


def _lines() -> Iterator[str]:
    import io

    from phi3_core.textfiles import MOST_BYTES, check_size, decode, encoding_of

    stream = sys.stdin.buffer
    # Waits for the first bytes only, so that lines can be answered one by one.
    encoding, mark = encoding_of(stream.peek(4) if isinstance(stream, io.BufferedReader) else b"")
    stream.read(mark)
    if encoding == "utf-8":  # line by line, so that one line in another encoding is named
        while line := stream.readline(MOST_BYTES + 1):
            check_size(line, "a line on stdin")
            yield decode(line, "a line on stdin", fallback=_console_encoding()).rstrip("\n")
    else:
        texts = io.TextIOWrapper(stream, encoding, errors="replace")
        try:
            while text := texts.readline(MOST_BYTES + 1):
                check_size(text, "a line on stdin")
                yield text.rstrip("\n")
        finally:
            texts.detach()  # or it would close stdin


def _console_encoding() -> str | None:
    """Return the code page of Windows' console, in which its programs write to pipes; None on other systems."""
    if sys.platform == "win32":
        import ctypes

        page = ctypes.windll.kernel32.GetConsoleOutputCP() or ctypes.windll.kernel32.GetOEMCP()
        return f"cp{page}" if page != 65001 else None
    return None
