"""Run a foreign program that takes minutes: logged, watched, and never left behind."""

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

from phi3_core.worker.lifetime import tie_to_host

from . import guard

Tell = Callable[[str], object]
"""Is told every line that a program writes, and an empty one now and then while the program is at work."""

_TICK_S = 0.2
_PULSE_S = 5.0
_END_S = 5.0
_KILLED = 137  # 128 and the number of SIGKILL
# What pip says when its last attempt failed.
_UNREACHABLE = re.compile(r"Retry\(total=0\b.*connection broken by '?(?P<why>.*?)'?: /")
_FAILURE = re.compile(r"ERROR: ")
# Of uv, and of a Python that an exception ended.
_LAST_FAILURE = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt)\b")
_OBJECT = re.compile(r"<[^>]*>: ")
_CAUSE = re.compile(r"(cause|Caused by): (?P<why>.*)")


@frozen(kw_only=True)
class Outcome:
    """How a program ended."""

    code: int
    text: str = field(repr=False)
    """All that it wrote."""

    @property
    def cause(self) -> str:
        """Why it failed, as far as one line of what it wrote, or its exit code, can tell."""
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
    """Run a program to its end. What it writes goes to the end of ``log``; it cannot ask anything.

    It ends with this process, however that ends, and so does what it started itself. As long as it writes or
    computes, ``tell`` is called; whether silence has lasted too long is for the caller to say.
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
        return Outcome(code=process.returncode, text=written.read().decode("utf-8", "replace").replace("\r", "\n"))


def _start(
    command: list[str], output: IO[bytes], environment: Mapping[str, str], folder: Path | None
) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        command = [sys.executable, "-I", "-S", guard.__file__, *command]
        options = {"stdin": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(
        command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment), cwd=folder, **options
    )


@define
class _Watch:
    """A running program and what it started."""

    process: subprocess.Popen[bytes]
    _job: object = field(init=False)
    _seconds: float = field(init=False, default=0.0)
    _looked: float = field(init=False, factory=time.monotonic)

    def __attrs_post_init__(self) -> None:
        self._job = tie_to_host(self.process)

    def pulse(self) -> bool:
        """Every few seconds: whether the processor has worked for the program since the last time."""
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
        """Leave nothing running, if this is not the program's own end."""
        if self.process.poll() is None:
            family = self._family()
            if sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self.process.wait()
            psutil.wait_procs(family, timeout=_END_S)  # what they write to can then be removed
        if self.process.stdin is not None:
            self.process.stdin.close()
