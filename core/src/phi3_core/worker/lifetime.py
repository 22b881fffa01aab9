"""End a worker together with its host, however the host ends.

The worker's standard input is a pipe that the host holds open and never writes to; it closes when the host ends. A
thread waits for that on all systems. A native library that holds the GIL would block this thread, so on Linux and
Windows the system also kills the process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any


def end_with_host() -> None:
    """End this process when the host ends. Called in the worker."""
    lifeline = sys.stdin.fileno()
    if sys.platform == "linux":
        import fcntl
        import signal

        # The kernel sends SIGIO when the state of the pipe changes, which happens only when it closes. F_SETSIG makes
        # that SIGKILL, which cannot be caught, blocked or delayed. (PR_SET_PDEATHSIG would also be sent when only the
        # thread that started this process ends.)
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait_for_end, args=(lifeline,), name="phi3-lifeline", daemon=True).start()


def _wait_for_end(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os._exit(1)


def tie_to_host(process: subprocess.Popen[bytes]) -> Any:
    """Let the system end ``process`` together with this one. Called in the host.

    Returns:
        An object to keep as long as the process is needed.
    """
    if sys.platform == "win32":
        return _windows_job(process.pid)
    return None


def _windows_job(process: int) -> Any:
    """Assign a process to a job, which Windows ends when its last handle, ours, is closed."""
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    class BasicLimits(ctypes.Structure):
        _fields_ = (
            ("per_process_user_time_limit", ctypes.c_int64),
            ("per_job_user_time_limit", ctypes.c_int64),
            ("limit_flags", wintypes.DWORD),
            ("minimum_working_set_size", ctypes.c_size_t),
            ("maximum_working_set_size", ctypes.c_size_t),
            ("active_process_limit", wintypes.DWORD),
            ("affinity", ctypes.c_size_t),
            ("priority_class", wintypes.DWORD),
            ("scheduling_class", wintypes.DWORD),
        )

    class ExtendedLimits(ctypes.Structure):
        _fields_ = (
            ("basic", BasicLimits),
            ("io_counters", ctypes.c_uint64 * 6),
            ("process_memory_limit", ctypes.c_size_t),
            ("job_memory_limit", ctypes.c_size_t),
            ("peak_process_memory_used", ctypes.c_size_t),
            ("peak_job_memory_used", ctypes.c_size_t),
        )

    extended_limit_information, kill_on_job_close = 9, 0x2000
    set_quota_and_terminate = 0x0101  # the rights that AssignProcessToJobObject requires
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateJobObjectW.restype = wintypes.HANDLE
    kernel.OpenProcess.restype = wintypes.HANDLE
    kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
    kernel.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
    kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
    job = kernel.CreateJobObjectW(None, None)
    handle = kernel.OpenProcess(set_quota_and_terminate, False, process)
    limits = ExtendedLimits()
    limits.basic.limit_flags = kill_on_job_close
    tied = (
        job
        and handle
        and kernel.SetInformationJobObject(job, extended_limit_information, ctypes.byref(limits), ctypes.sizeof(limits))
        and kernel.AssignProcessToJobObject(job, handle)
    )
    kernel.CloseHandle(handle)
    return job if tied else None  # otherwise only the thread in the worker ends it
