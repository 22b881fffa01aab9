"""The line at the bottom of the terminal during an answer: a real terminal, and a small one that shows what it gets."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys

import pytest

COLUMNS, ROWS = 40, 10
SLOW = """
import time
Engine.context_length = 4096

@hookimpl
def generate(engine, request):
    for _ in range(request.max_new_tokens):
        time.sleep(0.01)
        yield request.prompt_ids[1]
"""
_PARTS = re.compile(r"\x1b7|\x1b8|\x1b\[(?P<numbers>[0-9;]*)(?P<letter>[A-Za-z])|\r|\n|[^\x1b\r\n]")


class Screen:
    """The rows of a terminal: text wraps when the next character comes, and rows scroll between two margins."""

    def __init__(self) -> None:
        self.rows = [" " * COLUMNS] * ROWS
        self.row = self.column = 0
        self.margins = 0, ROWS - 1
        self.seen: list[str] = []
        """What the last row has shown while it did not scroll."""
        self._saved = 0, 0

    def feed(self, text: str) -> None:
        for part in _PARTS.finditer(text):
            if part["letter"]:
                self._control(part["letter"], [int(number) for number in part["numbers"].split(";") if number])
            elif part[0] == "\x1b7":
                self._saved = self.row, self.column
            elif part[0] == "\x1b8":
                self.row, self.column = self._saved
            elif part[0] == "\r":
                self.column = 0
            elif part[0] == "\n":
                self._next_row()
            else:
                self._put(part[0])

    def _control(self, letter: str, numbers: list[int]) -> None:
        if letter == "r":
            top, bottom = numbers or (1, ROWS)
            self.margins, self.row, self.column = (top - 1, bottom - 1), 0, 0
        elif letter == "H":
            self.row, self.column = numbers[0] - 1, numbers[1] - 1
        elif letter == "A":
            self.row = max(0, self.row - 1)
        elif letter == "K":
            self.rows[self.row] = " " * COLUMNS
        else:
            raise AssertionError(f"not a sequence that is used: {letter}")

    def _next_row(self) -> None:
        top, bottom = self.margins
        if self.row == bottom:
            self.rows[top : bottom + 1] = [*self.rows[top + 1 : bottom + 1], " " * COLUMNS]
        elif self.row < ROWS - 1:
            self.row += 1

    def _put(self, character: str) -> None:
        if self.column == COLUMNS:
            self.column = 0
            self._next_row()
        row = self.rows[self.row]
        self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
        self.column += 1
        if self.row == ROWS - 1 and self.margins[1] < ROWS - 1:
            self.seen.append(self.rows[-1].rstrip())


@pytest.fixture
def chat(plugins, source):
    """Runs ``phi3 chat`` with a terminal as stdout and stderr, and returns what it writes there."""
    if sys.platform == "win32":
        pytest.skip("needs a terminal as POSIX systems have it")
    import fcntl
    import termios

    plugins.add("slow", changes=SLOW)

    def run(*flags, question="Hello world", **environment):
        terminal, other = os.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        command = [sys.executable, "-m", "phi3_core", "chat", "-m", source, "-d", "slow", *flags]
        variables = {**os.environ, "TERM": "xterm", **environment}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=other, stderr=other, env=variables) as process:
            os.close(other)
            process.stdin.write(question.encode() + b"\n")
            process.stdin.close()
            text = b""
            with contextlib.suppress(OSError):  # its other end is closed
                while data := os.read(terminal, 65536):
                    text += data
        os.close(terminal)
        assert process.returncode == 0, text
        return text.decode()

    return run


def test_the_answer_scrolls_above_the_line_which_is_gone_afterwards(chat):
    written = chat("--max-new-tokens", "180", "--no-check")
    screen = Screen()
    screen.feed(written)
    assert any(re.fullmatch(r"CPU \d+ % \(engine \d+ %\)", line) for line in screen.seen)
    plain = re.sub(r"\x1b[78]|\x1b\[[0-9;]*[A-Za-z]", "", re.sub(r"\x1b7\x1b\[10;1H.*?\x1b8", "", written))
    answer = max(plain.replace("\r", "").split("\n"), key=len)
    assert len(answer) > COLUMNS * ROWS
    lines = [answer[start : start + COLUMNS] for start in range(0, len(answer), COLUMNS)]
    shown = [row.rstrip() for row in screen.rows]
    first = shown.index(lines[-1].rstrip())
    assert shown[: first + 1] == [line.rstrip() for line in lines][-first - 1 :]
    assert not any("CPU" in row for row in shown)
    assert screen.margins == (0, ROWS - 1)


@pytest.mark.parametrize(("flags", "variables"), [(("-q",), {}), ((), {"TERM": "dumb"})], ids=["--quiet", "dumb"])
def test_there_is_no_line_where_it_is_not_wanted_or_not_understood(chat, flags, variables):
    assert "\x1b" not in chat("--max-new-tokens", "3", "--no-check", *flags, **variables)


def test_ctrl_c_leaves_the_terminal_as_it_was(chat, plugins):
    changes = SLOW.replace("time.sleep(0.01)", "time.sleep(0.01); engine.count = getattr(engine, 'count', 0) + 1")
    interrupt = "import os, signal; engine.count == 180 and os.kill(os.getppid(), signal.SIGINT)"
    plugins.add("loud", changes=changes.replace("yield", f"{interrupt}\n        yield"))
    written = chat("-d", "loud", "--max-new-tokens", "400", "--no-check")
    assert "stopped" in written
    screen = Screen()
    screen.feed(written)
    assert screen.margins == (0, ROWS - 1)
    assert screen.seen
    assert not any("CPU" in row for row in screen.rows)
