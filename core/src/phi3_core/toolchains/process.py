"""Run an external program that takes minutes: log its output, watch it, and end it with this process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
from attrs import define, field, frozen

from phi3_core.interpreter import python
from phi3_core.worker.lifetime import Tie, tie_to_host

from . import guard

Tell = Callable[[str], object]
"""Called with each line of a program's output, and with an empty string every few seconds while it is computing."""

_TICK_S = 0.2
_PULSE_S = 5.0
_END_S = 5.0
_KILLED = 137  # 128 plus SIGKILL
# pip's message after its last attempt.
_UNREACHABLE = re.compile(r"Retry\(total=0\b.*connection broken by '?(?P<why>.*?)'?: /")
_FAILURE = re.compile(r"ERROR: ")
# The last line of uv, and of Python after an uncaught exception.
_LAST_FAILURE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt)\b")
_OBJECT = re.compile(r"<[^>]*>: ")
_CAUSE = re.compile(r"(cause|Caused by): (?P<why>.*)")


@frozen(kw_only=True)
class Outcome:
    """The result of a program."""

    code: int
    """The exit code."""
    text: str = field(repr=False)
    """The complete output."""

    @property
    def cause(self) -> str:
        """The cause of a failure in one line: from the output, else the exit code."""
        if self.code == _KILLED:
            return "it was killed, as systems do when memory runs out"
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        for line in reversed(lines):
            if found := _UNREACHABLE.search(line):
                return f"the package index cannot be reached: {_OBJECT.sub('', found['why'])}"
        failures = [line for line in lines if _FAILURE.match(line)][:1]
        failures = failures or [line for line in lines if _LAST_FAILURE.match(line)][-1:] or lines[-1:]
        if not failures:
            return f"exit code {self.code}"
        causes = [found["why"] for line in lines if (found := _CAUSE.match(line))]
        said = re.sub(r"(?i)^error: ", "", failures[0])
        return ": ".join([said, *causes[-1:]])[:400]


def run(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str], folder: Path | None, tell: Tell
) -> Outcome:
    """Run a program until it ends, without standard input.

    The program and its child processes are killed when this process ends.

    Args:
        command: the program and its arguments.
        log: the output is appended to this file.
        environment: the environment variables.
        folder: the working directory; None for the current one.
        tell: called while the program prints or computes. There is no time limit; the caller may raise here.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        watch = _Watch(process := _start([str(word) for word in command], output, environment, folder))
    with log.open("rb") as written:
        written.seek(start)
        rest = b""
        try:
            while True:
                ended = process.poll() is not None
                *lines, rest = re.split(rb"[\r\n]+", rest + written.read())
                for line in [*lines, rest] if ended else lines:
                    if text := line.decode("utf-8", "replace").strip():
                        tell(text)
                if ended:
                    break
                if watch.pulse():
                    tell("")
                time.sleep(_TICK_S)
        finally:
            watch.end()
        written.seek(start)
        # Lines end as on any system; a progress bar ends its own with a carriage return alone.
        lines = re.split(rb"\r\n|\r|\n", written.read())
        return Outcome(code=process.returncode, text=b"\n".join(lines).decode("utf-8", "replace"))


def _start(
    command: list[str], output: IO[bytes], environment: Mapping[str, str], folder: Path | None
) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        command = [python(), "-I", "-S", guard.__file__, *command]
        options = {"stdin": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment), cwd=folder, **options
    )


@define
class _Watch:
    """A running program and its child processes."""

    process: subprocess.Popen[bytes]
    _tie: Tie = field(init=False)
    _seconds: float = field(init=False, default=0.0)
    _looked: float = field(init=False, factory=time.monotonic)

    def __attrs_post_init__(self) -> None:
        self._tie = tie_to_host(self.process)

    def pulse(self) -> bool:
        """Return whether the program has used processor time since the last check, every few seconds."""
        now = time.monotonic()
        if now - self._looked < _PULSE_S:
            return False
        before, self._seconds, self._looked = self._seconds, self._computed(), now
        return self._seconds != before

    def _computed(self) -> float:
        seconds = 0.0
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds

    def _family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def end(self) -> None:
        """Kill the program and its child processes, unless it has ended by itself."""
        if self.process.poll() is None:
            family = self._family()
            if sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.process.wait()
            psutil.wait_procs(family, timeout=_END_S)  # so that the files they have open can be removed
        self._tie.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
