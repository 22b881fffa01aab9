"""A Windows job object: processes that Windows ends together with the process that holds the job's only handle.

The structures and constants are those of ``winnt.h``.
"""

from __future__ import annotations

import ctypes
from ctypes import wintypes

_EXTENDED_LIMIT_INFORMATION = 9  # JobObjectExtendedLimitInformation
_KILL_ON_JOB_CLOSE = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
_SET_QUOTA_AND_TERMINATE = 0x0101  # the rights that AssignProcessToJobObject requires


class _BasicLimits(ctypes.Structure):
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


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory_limit", ctypes.c_size_t),
        ("job_memory_limit", ctypes.c_size_t),
        ("peak_process_memory_used", ctypes.c_size_t),
        ("peak_job_memory_used", ctypes.c_size_t),
    )


class Job:
    """A job with one process and all that it starts. They end when the job is closed, or with this process.

    Args:
        process: the id of the process.

    Raises:
        OSError: Windows refuses the job or the process.
    """

    def __init__(self, process: int) -> None:
        self._kernel = kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
        kernel.CreateJobObjectW.restype = wintypes.HANDLE
        kernel.OpenProcess.restype = wintypes.HANDLE
        kernel.CloseHandle.argtypes = (wintypes.HANDLE,)
        kernel.SetInformationJobObject.argtypes = (wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD)
        kernel.AssignProcessToJobObject.argtypes = (wintypes.HANDLE, wintypes.HANDLE)
        limits = _ExtendedLimits()
        limits.basic.limit_flags = _KILL_ON_JOB_CLOSE
        size = ctypes.sizeof(limits)
        self._handle = self._checked(kernel.CreateJobObjectW(None, None))
        try:
            self._checked(
                kernel.SetInformationJobObject(self._handle, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), size)
            )
            target = self._checked(kernel.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, process))
            try:
                self._checked(kernel.AssignProcessToJobObject(self._handle, target))
            finally:
                kernel.CloseHandle(target)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """End the processes of the job."""
        handle, self._handle = self._handle, 0
        if handle:
            self._kernel.CloseHandle(handle)

    @staticmethod
    def _checked(result: int) -> int:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
        return result
