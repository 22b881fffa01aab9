"""End a worker together with its host, however the host ends.

On POSIX systems the worker's standard input is a pipe that the host holds open and never writes to; it closes when the
host ends, and a thread of the worker waits for that. On Windows the thread waits for the host's process instead: while
a thread reads a pipe there, every other access to its handle blocks, and native libraries look at the standard handles
while they are loaded (OpenBLAS does), so that the worker would never get beyond ``import numpy``.

A native library that holds the GIL would block this thread, so on Linux and Windows the system also kills the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Protocol

_SYNCHRONIZE = 0x00100000  # the right to wait for a process


class Tie(Protocol):
    """Ends a process, and what it has started, when it is closed or when this process ends."""

    def close(self) -> None: ...


def end_with_host(host: int | None) -> None:
    """End this process when the host ends. Called in the worker.

    Args:
        host: on Windows, the inherited handle of :func:`handle_of_this_process`.
    """
    if sys.platform == "win32":
        wait, argument = _wait_for_process, host
    else:
        wait, argument = _wait_for_end, sys.stdin.fileno()
    if sys.platform == "linux":
        _kill_at_end(sys.stdin.fileno())
    threading.Thread(target=wait, args=(argument,), name="phi3-lifeline", daemon=True).start()


def _kill_at_end(lifeline: int) -> None:
    """Let the kernel kill this process when the pipe closes."""
    if sys.platform == "linux":
        import fcntl

        # The kernel sends SIGIO when the state of the pipe changes, which happens only when it closes. F_SETSIG makes
        # that SIGKILL, which cannot be caught, blocked or delayed. (PR_SET_PDEATHSIG would also be sent when only the
        # thread that started this process ends.)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_for_end(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os._exit(1)


def _wait_for_process(handle: int) -> None:
    if sys.platform == "win32":
        import _winapi

        _winapi.WaitForSingleObject(handle, _winapi.INFINITE)
        # os._exit would wait for a library that is being loaded.
        _winapi.TerminateProcess(_winapi.GetCurrentProcess(), 1)


@contextlib.contextmanager
def handle_of_this_process() -> Iterator[int]:
    """Provide an inheritable Windows handle of this process, which permits only to wait for its end."""
    if sys.platform != "win32":
        raise OSError("only Windows has handles of processes")
    import _winapi

    this = _winapi.GetCurrentProcess()
    handle = _winapi.DuplicateHandle(this, this, this, _SYNCHRONIZE, True, 0)
    try:
        yield int(handle)
    finally:
        _winapi.CloseHandle(handle)


def tie_to_host(process: subprocess.Popen[bytes]) -> Tie:
    """Let the system end ``process`` together with this one. Called in the host.

    Returns:
        An object to keep as long as the process is needed, and to close then.
    """
    if sys.platform == "win32":
        from .windows_job import Job  # start-up: ctypes, which only Windows needs

        try:
            return Job(process.pid)
        except OSError:  # only the thread in the worker ends it then
            return _Loose()
    return _Loose()


class _Loose:
    """No tie: the system has none, or refuses it."""

    def close(self) -> None:
        """Do nothing."""
