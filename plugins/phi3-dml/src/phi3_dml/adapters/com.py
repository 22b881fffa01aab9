"""The parts of the Component Object Model (COM) that are needed: identifiers, interface pointers and method calls.

A COM interface is a pointer to a table of functions. Slots are numbered from 0 through all base interfaces, in the
order of the Windows headers; every table begins with QueryInterface, AddRef and Release. The module uses Windows only
when something is called, so tests can compare layouts and slots with the headers on every system.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any

_FUNCTION: Any = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)
_FAILED = 0x80000000
RELEASE = 2


class Luid(ctypes.Structure):
    """``LUID``."""

    _fields_ = (("low", ctypes.c_uint32), ("high", ctypes.c_int32))

    def __str__(self) -> str:
        return f"{self.high}:{self.low}"


class ComError(Exception):
    """A call that failed with the HRESULT ``code``."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(f"{what}: 0x{code:08X}")
        self.code = code


def check(what: str, code: int) -> None:
    """Check the HRESULT of a call.

    Args:
        what: the name of the call.
        code: its HRESULT.

    Raises:
        ComError: the HRESULT is a failure.
    """
    if code & _FAILED:
        raise ComError(what, code & 0xFFFFFFFF)


class Method:
    """A method of an interface: its slot, and the types of its arguments after ``this``."""

    def __init__(self, slot: int, *arguments: Any, result: Any = ctypes.c_uint32) -> None:
        self.slot = slot
        self.type = _FUNCTION(result, ctypes.c_void_p, *arguments)


_RELEASE = Method(RELEASE)


class Interface:
    """An interface pointer that is released at the end of the ``with`` block."""

    def __init__(self, pointer: ctypes.c_void_p) -> None:
        self.pointer = pointer

    def __enter__(self) -> Interface:  # noqa: PYI034 - Python 3.10 has no Self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call(_RELEASE)

    def call(self, method: Method, *arguments: Any) -> Any:
        """Call a method and return its result."""
        table = ctypes.cast(self.pointer, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
        return method.type(table[method.slot])(self.pointer, *arguments)
