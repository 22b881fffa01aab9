"""GPUs and NPUs on Windows: the performance counters ``GPU Engine``, which the Task Manager shows too.

Windows lists NPUs among the GPUs. Each process has an instance for each part of each adapter that it uses, named as
``pid_4188_luid_0x00000000_0x0000BB15_phys_0_eng_0_engtype_Compute``. An adapter for graphics always has a part of the
type ``3D``, and an NPU none. (The type ``Neural`` says nothing: Intel's GPUs have such a part too.)

Structures and constants are those of ``pdh.h`` and ``pdhmsg.h``.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from phi3_core.windows import system_library

COUNTER = r"\GPU Engine(*)\Utilization Percentage"
_INSTANCE = re.compile(
    r"pid_(?P<process>\d+)_luid_(?P<adapter>0x[0-9a-f]+_0x[0-9a-f]+_phys_\d+)_eng_(?P<part>\d+)_engtype_(?P<type>.*)",
    re.IGNORECASE,
)
DOUBLE = 0x200
MORE_DATA = 0x800007D2
VALID_DATA, NEW_DATA = 0, 1


class Item(ctypes.Structure):
    """``PDH_FMT_COUNTERVALUE_ITEM_W`` with a double."""

    _fields_ = (("name", ctypes.c_wchar_p), ("status", ctypes.c_uint32), ("value", ctypes.c_double))


class Used(NamedTuple):
    """How busy a process kept the busiest part of the busiest adapter of each kind, 0 to 1; None without an adapter."""

    gpu: float | None
    npu: float | None


def used(percentages: Mapping[str, float], process: int | None) -> Used:
    """Return how busy a process kept GPUs and NPUs.

    Args:
        percentages: the percentage of each instance, of all processes: they show what the adapters are.
        process: the process's id; None for all processes together.
    """
    graphics: dict[str, bool] = {}
    parts: dict[tuple[str, str], float] = {}
    for name, percentage in percentages.items():
        found = _INSTANCE.match(name)
        if found is None:
            continue
        adapter = found["adapter"].lower()
        graphics[adapter] = graphics.get(adapter, False) or found["type"].lower() == "3d"
        own = process is None or int(found["process"]) == process
        part = adapter, found["part"]
        parts[part] = parts.get(part, 0.0) + (max(0.0, percentage) / 100 if own else 0.0)

    def busiest(*, is_gpu: bool) -> float | None:
        shares = [share for (adapter, _), share in parts.items() if graphics[adapter] == is_gpu]
        return min(1.0, max(shares)) if shares else None

    return Used(busiest(is_gpu=True), busiest(is_gpu=False))


class GpuEngines:
    """A query of the counters. Each reading is about the time since the one before.

    Raises:
        OSError: this version of Windows does not have the counters, or refuses them.
        AttributeError: this is not Windows.
    """

    def __init__(self) -> None:
        library = system_library("pdh.dll")
        names = ("PdhOpenQueryW", "PdhAddEnglishCounterW", "PdhCollectQueryData", "PdhGetFormattedCounterArrayW")
        self._open, self._add, self._collect, self._array = (getattr(library, name) for name in names)
        self._close = library.PdhCloseQuery
        pointer, handle, number = ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32)
        self._open.argtypes = (ctypes.c_wchar_p, ctypes.c_size_t, pointer)
        self._add.argtypes = (handle, ctypes.c_wchar_p, ctypes.c_size_t, pointer)
        self._collect.argtypes = self._close.argtypes = (handle,)
        self._array.argtypes = (handle, ctypes.c_uint32, number, number, ctypes.c_void_p)
        for function in (self._open, self._add, self._collect, self._array, self._close):
            function.restype = ctypes.c_uint32
        self._query, self._counter = ctypes.c_void_p(), ctypes.c_void_p()
        _check(self._open(None, 0, ctypes.byref(self._query)))
        try:
            # In English, whatever the language of the system.
            _check(self._add(self._query, COUNTER, 0, ctypes.byref(self._counter)))
            self._collect(self._query)  # the first one only begins
        except OSError:
            self.close()
            raise

    def read(self) -> dict[str, float]:
        """Return the percentage of each instance since the last call; empty if there is none."""
        size, count = ctypes.c_uint32(0), ctypes.c_uint32(0)
        if self._collect(self._query) != 0:
            return {}
        code, buffer = MORE_DATA, None
        while code == MORE_DATA:  # instances may come between two calls
            buffer = (ctypes.c_uint8 * size.value)() if size.value else None
            code = self._array(self._counter, DOUBLE, ctypes.byref(size), ctypes.byref(count), buffer)
        if code != 0 or buffer is None:
            return {}
        items: Any = ctypes.cast(buffer, ctypes.POINTER(Item * count.value)).contents
        return {item.name: item.value for item in items if item.status in {VALID_DATA, NEW_DATA}}

    def close(self) -> None:
        """End the query."""
        query, self._query = self._query, ctypes.c_void_p()
        if query.value:
            self._close(query)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # it was not opened
            self.close()


def _check(code: int) -> None:
    if code != 0:
        raise OSError(f"the performance counters are not available: 0x{code:08X}")
