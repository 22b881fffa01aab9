"""Start and end the process of a worker, and describe its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def start_process(handle: int) -> subprocess.Popen[bytes]:
    """Start the worker, which inherits only ``handle``, and receives no signals from the console."""
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        options["startupinfo"] = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    else:
        options["pass_fds"] = [handle]
        options["start_new_session"] = True
    # -P keeps the current folder out of sys.path; Python 3.10 does not have it.
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    return subprocess.Popen(
        [sys.executable, *flags, "-m", "phi3_core.worker", str(handle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        **options,
    )


def _environment() -> Mapping[str, str]:
    """Return the host's environment, with its ``sys.path``, so that both processes find the same distributions."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8:backslashreplace"}


def end_process(process: subprocess.Popen[bytes], connection: Any, host: int) -> None:
    """Kill the worker's process and close the host's end of the connection, if this is the process ``host``."""
    if os.getpid() != host:
        return  # called in a fork of the host
    with contextlib.suppress(OSError):
        connection.close()
    process.kill()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5.0)


def exit_words(code: int | None) -> str:
    """Return an exit code as words: a signal's name, or the number."""
    if code is None:
        return "its end of the pipe is closed"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}" if code < 2**16 else f"exit code 0x{code & 0xFFFFFFFF:08X}"
