"""Start and end the process of a worker, and describe its exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from weakref import WeakSet

from phi3_core.cgroups import memory_limit
from phi3_core.config import shows_output
from phi3_core.config.values import for_workers
from phi3_core.interpreter import module_command
from phi3_core.paths import home
from phi3_core.units import format_bytes

from .lifetime import Tie, handle_of_this_process

_LARGE_PAGES = "glibc.malloc.hugetlb"
"""With the value 1, large blocks of memory are marked for transparent huge pages (glibc 2.35, madvise)."""

_STARTED: WeakSet[subprocess.Popen[bytes]] = WeakSet()


def reserve_standard_streams() -> None:
    """Open the null device as each standard stream that is closed, as in a daemon; else a pipe would become one."""
    if sys.platform == "win32":
        return  # its handles are not numbered
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


def start_process(handle: int) -> subprocess.Popen[bytes]:
    """Start the worker, which inherits only ``handle``, and receives no signals from the console."""
    return _start_on_windows(handle) if sys.platform == "win32" else _start(handle)


def _start(handle: int) -> subprocess.Popen[bytes]:
    command = module_command("phi3_core.worker", str(handle))
    # Standard input is the lifeline: see lifetime.py.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, env=_environment(), pass_fds=[handle], start_new_session=True, **_OUTPUT
    )
    _STARTED.add(process)
    return process


def _let_go() -> None:
    """Close a forked process's ends of the lifelines: with them, workers would live as long as the fork does."""
    for process in tuple(_STARTED):
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


def _start_on_windows(handle: int) -> subprocess.Popen[bytes]:
    options: dict[str, Any] = {}
    environment = _environment()
    # The python.exe of a virtual environment starts another one and waits for it. That one is started here, as
    # multiprocessing does, so that the process that is tied and killed is the worker itself.
    command = module_command("phi3_core.worker", str(handle))
    base = getattr(sys, "_base_executable", None)
    if base and command[0] == sys.executable != base:
        environment["__PYVENV_LAUNCHER__"] = sys.executable
        command[0] = base
    with handle_of_this_process() as host:
        if sys.platform == "win32":
            os.set_handle_inheritable(handle, True)
            options["startupinfo"] = subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle, host]})
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen([*command, str(host)], stdin=subprocess.DEVNULL, env=environment, **options, **_OUTPUT)


_OUTPUT: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def _environment() -> dict[str, str]:
    """Return the host's environment, with its ``sys.path``, so that both processes find the same distributions.

    What libraries and drivers keep for themselves goes into the store; those that heed it report nothing to anybody.
    """
    path = []
    for entry in sys.path:
        with contextlib.suppress(OSError):  # the current folder has been removed
            path.append(str(Path(entry).absolute()))
    shown = {"PYTHONUNBUFFERED": "1"} if shows_output() else {}
    return {
        **os.environ,
        **_large_pages(),
        **for_workers(),
        **shown,
        "PHI3_HOME": str(home()),  # also if the worker's current folder is another one
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "XDG_CACHE_HOME": str(home() / "libraries"),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _large_pages() -> dict[str, str]:
    """Return what makes glibc ask Linux for large pages, unless the user has set it: weights are read faster then.

    See docs/decisions/0053.
    """
    given = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or _LARGE_PAGES in given:
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, (given, f"{_LARGE_PAGES}=1")))}


def end_process(process: subprocess.Popen[bytes], connection: Any, tie: Tie) -> None:
    """Kill the worker's process, and what it has started, and close the host's end of the connection."""
    with contextlib.suppress(OSError):
        connection.close()
    process.kill()
    if sys.platform != "win32":  # which ends them with the tie
        with contextlib.suppress(OSError):  # it has left none
            os.killpg(process.pid, signal.SIGKILL)
    tie.close()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5.0)


def peak_memory(process: int) -> int | None:
    """Return the largest resident memory of a process so far, in bytes; None if the system does not tell.

    Files that are mapped into memory count as far as they have been read.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
            found = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
            return 1024 * int(next(found, 0)) or None
    with contextlib.suppress(Exception):  # it has ended, or the system does not tell
        import psutil  # start-up: needed only here

        told = psutil.Process(process).memory_info()
        return getattr(told, "peak_wset", None)  # on Windows
    return None


def exit_words(code: int | None) -> str:
    """Return an exit code as words: a signal's name, or the number."""
    if code is None:
        return "its end of the pipe is closed"
    if code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            limit = _limit_of_killed(code)
            return name if limit is None else f"{name}; its memory is limited to {format_bytes(limit)}"
    return f"exit code {code}" if code < 2**16 else f"exit code 0x{code & 0xFFFFFFFF:08X}"


def exit_hint(code: int | None) -> str | None:
    """Return what can be done about an exit code; None if its cause is unknown."""
    if _limit_of_killed(code) is None:
        return None
    return "it may have needed more: raise the limit of the container, or choose a smaller model or --precision int4"


def _limit_of_killed(code: int | None) -> int | None:
    """Return the limit of memory, in bytes, if there is one and the process was killed, as the system does at it."""
    return memory_limit() if sys.platform != "win32" and code == -signal.SIGKILL else None
