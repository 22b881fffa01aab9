"""The line at the bottom of the terminal during an answer: a real terminal, and a small one that shows what it gets."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import subprocess
import sys

import pytest
from phi3_core.activity.values import Activity
from phi3_core.cli.live import LiveLine

COLUMNS, ROWS = 40, 10
SLOW = """
import os, signal, time
Engine.context_length = 4096

@hookimpl
def generate(engine, request):
    begun = time.monotonic()
    for _ in range(request.max_new_tokens):
        time.sleep(0.01)
        yield request.prompt_ids[1]
        if time.monotonic() - begun > 1.6:  # the line comes after a second
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
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
def terminal(monkeypatch):
    """Runs what is given with a new terminal as stderr, and returns what it writes there up to ``end``."""
    if sys.platform == "win32":
        pytest.skip("needs a terminal as POSIX systems have it")
    monkeypatch.setenv("TERM", "xterm")

    def run(action, rows=ROWS):
        ours, theirs = open_terminal(rows)
        with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as changed:  # noqa: PTH123 - no path
            changed.setattr(sys, "stderr", stream)
            action(lambda text: print(text, end="", file=stream, flush=True))
            print("end", end="", file=stream, flush=True)
            text = ""
            while not text.endswith("end"):
                text += os.read(ours, 65536).decode()
        os.close(ours)
        return text

    return run


def shown(text):
    """What a terminal shows that was given a text."""
    screen = Screen()
    screen.feed(text)
    return screen, [row.rstrip() for row in screen.rows]


def open_terminal(rows=ROWS):
    """Return both ends of a new terminal."""
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
    return ours, theirs


BUSY = Activity(seconds=1.0, cpu=0.5, engine_cpu=0.25, npu=0.9)
LINE = "CPU 50 % (engine 25 %), NPU 90 %"


@pytest.mark.parametrize("lines_before", [0, 3, ROWS + 5], ids="after {} lines".format)
def test_the_answer_scrolls_above_the_line_which_is_gone_afterwards(terminal, lines_before):
    answer = "".join(f"{number} words, " for number in range(100))

    def action(write):
        write("earlier\n" * lines_before)
        with LiveLine(wanted=True) as line:
            for start in range(0, len(answer), 7):
                write(answer[start : start + 7])
                if start % 70 == 0:
                    line.show(BUSY)
        write("\n")

    screen, rows = shown(terminal(action))
    lines = [answer[start : start + COLUMNS].rstrip() for start in range(0, len(answer), COLUMNS)]
    assert screen.seen.count(LINE) == len(range(0, len(answer), 70))
    last = rows.index("end")
    assert last >= ROWS - 2
    assert rows[:last] == lines[-last:]
    assert not any("CPU" in row for row in rows)
    assert screen.margins == (0, ROWS - 1)


def test_a_short_answer_leaves_the_lines_before_it_alone(terminal):
    def action(write):
        write("earlier\n")
        with LiveLine(wanted=True) as line:
            write("Paris.")
            line.show(BUSY)
        write("\n")

    _, rows = shown(terminal(action))
    assert rows == ["earlier", "Paris.", "end", *[""] * (ROWS - 3)]


def test_a_line_that_is_longer_than_the_terminal_is_cut(terminal):
    def action(write):
        with LiveLine(wanted=True) as line:
            line.show(Activity(seconds=1.0, cpu=0.5, engine_cpu=0.25, gpu=0.33, npu=0.9))

    screen, _ = shown(terminal(action))
    assert screen.seen[-1] == "CPU 50 % (engine 25 %), GPU 33 %, NPU 90 %"[: COLUMNS - 1].rstrip()


@pytest.mark.parametrize(
    ("wanted", "term", "rows"),
    [(False, "xterm", ROWS), (True, "dumb", ROWS), (True, "", ROWS), (True, "xterm", 5), (True, "xterm", 0)],
)
def test_there_is_no_line_where_it_is_not_wanted_or_not_possible(terminal, monkeypatch, wanted, term, rows):
    monkeypatch.setenv("TERM", term)

    def action(write):
        with LiveLine(wanted=wanted) as line:
            line.show(BUSY)
        assert not line.shown

    assert terminal(action, rows) == "end"


def chat(source, *flags, question="Hello world"):
    """Run ``phi3 chat`` with a terminal as stdout and stderr, and return what it writes there."""
    ours, theirs = open_terminal()
    command = [sys.executable, "-m", "phi3_core", "chat", "-m", source, "--no-check", *flags]
    variables = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=variables) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write(question.encode() + b"\n")
        process.stdin.close()
        text = b""
        with contextlib.suppress(OSError):  # its other end is closed
            while data := os.read(ours, 65536):
                text += data
    os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal as POSIX systems have it")
def test_a_conversation_has_the_line_and_ctrl_c_leaves_the_terminal_as_it_was(plugins, source):
    plugins.add("slow", changes=SLOW)
    written = chat(source, "-d", "slow", "--max-new-tokens", "400")
    assert "stopped" in written
    screen = Screen()
    screen.feed(written)
    assert screen.margins == (0, ROWS - 1)
    assert any(re.fullmatch(r"CPU \d+ % \(engine \d+ %\)", line) for line in screen.seen)
    assert not any("CPU" in row for row in screen.rows)
