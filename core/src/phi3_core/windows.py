"""Windows APIs that core and several backends use: GUIDs, system libraries, the device manager, files in use, paths.

Structures, constants and keys are those of ``guiddef.h``, ``cfgmgr32.h``, ``devpropdef.h``, ``devpkey.h``,
``winnt.h``, ``fileapi.h`` and ``consoleapi.h``. The module can be imported on every system, so that the structures can
be tested there, and calls Windows only when used.
"""

from __future__ import annotations

import ctypes
import sys
import uuid
from pathlib import Path
from typing import Any

LONGEST_PATH = 259
"""``MAX_PATH`` without the null at the end: the longest path in characters, unless long paths are enabled."""

COMPUTE_ACCELERATOR = "{F01A9D53-3FF6-48D2-9F97-C8A7004BE10C}"
"""The device class of NPUs."""
FILTER_ENUMERATOR, FILTER_PRESENT, FILTER_CLASS = 0x1, 0x100, 0x200
TYPE_UINT32, TYPE_STRING = 0x07, 0x12
LOCATE_NORMAL = 0
SUCCESS, BUFFER_SMALL = 0x00, 0x1A
DELETE, NOT_SHARED, OPEN_EXISTING = 0x10000, 0, 3
_SYSTEM32_ONLY = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32
_DEFAULT_FOLDERS = 0x1000  # LOAD_LIBRARY_SEARCH_DEFAULT_DIRS: the program's folder and the system's
STDERR = 2**32 - 12
PROCESSED_OUTPUT, TERMINAL_SEQUENCES = 0x1, 0x4
CPP_RUNTIME_MISSING = "Microsoft's C++ runtime is not installed"
CPP_RUNTIME_REMEDY = "install the newest Microsoft Visual C++ Redistributable for this processor"


class Guid(ctypes.Structure):
    """``GUID``."""

    _fields_ = (
        ("data1", ctypes.c_uint32),
        ("data2", ctypes.c_uint16),
        ("data3", ctypes.c_uint16),
        ("data4", ctypes.c_uint8 * 8),
    )


class PropertyKey(ctypes.Structure):
    """``DEVPROPKEY``."""

    _fields_ = (("fmtid", Guid), ("pid", ctypes.c_uint32))


def guid(text: str) -> Guid:
    """Return the GUID for its text form, with or without braces."""
    return Guid.from_buffer_copy(uuid.UUID(text).bytes_le)


def property_key(fmtid: str, pid: int) -> PropertyKey:
    """Return the key of a device property."""
    return PropertyKey(guid(fmtid), pid)


DEVICE_DESCRIPTION = property_key("a45c254e-df1c-4efd-8020-67d146a850e0", 2)
DRIVER_VERSION = property_key("a8b865dd-2e3d-4094-ad97-e593a70c75d6", 3)
PROBLEM_CODE = property_key("4340a6c5-93fa-4706-972c-7b648008a5a7", 3)
"""The Device Manager's problem code; 0 for a device that works."""


def system_library(name: str, *, last_error: bool = False) -> Any:
    """Load a library of Windows, from the system folder only.

    Args:
        name: the library's file name.
        last_error: whether ``ctypes.get_last_error`` returns the error of each call.

    Raises:
        OSError: this version of Windows does not have the library.
        AttributeError: this is not Windows.
    """
    # WinDLL and its argument winmode exist on Windows only.
    load = getattr(ctypes, "WinDLL")  # noqa: B009
    return load(name, winmode=_SYSTEM32_ONLY, use_last_error=last_error)


def has_cpp_runtime() -> bool:
    """Return whether Microsoft's C++ runtime can be loaded; true on other systems.

    The engines' libraries need ``msvcp140.dll``. Python brings only the part for C.
    """
    if sys.platform != "win32":
        return True
    try:
        ctypes.WinDLL("msvcp140.dll", winmode=_DEFAULT_FOLDERS)
    except OSError:
        return False
    return True


def enable_terminal_sequences() -> bool:
    """Let the console behind stderr heed terminals' escape sequences; return whether it does.

    Always False on other systems than Windows, and if stderr is no console.
    """
    try:
        library = system_library("kernel32.dll")
    except (OSError, AttributeError):
        return False
    library.GetStdHandle.argtypes, library.GetStdHandle.restype = (ctypes.c_uint32,), ctypes.c_void_p
    library.GetConsoleMode.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint32))
    library.SetConsoleMode.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    handle, mode = library.GetStdHandle(STDERR), ctypes.c_uint32()
    if not library.GetConsoleMode(handle, ctypes.byref(mode)):
        return False
    return bool(library.SetConsoleMode(handle, mode.value | PROCESSED_OUTPUT | TERMINAL_SEQUENCES))


def open_exclusively(file: Path) -> None:
    """Open a file in a way that fails if any program has it open, and close it at once.

    Raises:
        OSError: a program has the file open (``winerror`` is 32, ``ERROR_SHARING_VIOLATION``), or another error.
    """
    open_file = system_library("kernel32.dll", last_error=True).CreateFileW
    close = system_library("kernel32.dll").CloseHandle
    open_file.argtypes = (
        *(ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
        *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    )
    open_file.restype, close.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    handle = open_file(str(file), DELETE, NOT_SHARED, None, OPEN_EXISTING, 0, None)
    if handle == ctypes.c_void_p(-1).value:
        code = getattr(ctypes, "get_last_error")()  # noqa: B009 - exists on Windows only
        raise OSError(None, getattr(ctypes, "FormatError")(code).strip(), str(file), code)  # noqa: B009
    close(handle)


def long_paths_enabled() -> bool:
    """Return whether programs may use paths of more than :data:`LONGEST_PATH` characters; true on other systems."""
    if sys.platform != "win32":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as settings:
            return bool(winreg.QueryValueEx(settings, "LongPathsEnabled")[0])
    except OSError:  # versions before Windows 10
        return False


def is_too_long(path: Path, below: int = 0) -> bool:
    """Return whether this system refuses a path, or what is ``below`` it by as many characters, for its length."""
    text = str(path)
    return len(text) + below > LONGEST_PATH and not text.startswith("\\\\?\\") and not long_paths_enabled()


class DeviceManager:
    """The functions of ``cfgmgr32.dll`` that list devices and read their properties."""

    def __init__(self) -> None:
        library = system_library("cfgmgr32.dll")
        self._size = library.CM_Get_Device_ID_List_SizeW
        self._size.argtypes = (ctypes.POINTER(ctypes.c_uint32), ctypes.c_wchar_p, ctypes.c_uint32)
        self._list = library.CM_Get_Device_ID_ListW
        self._list.argtypes = (ctypes.c_wchar_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
        self._locate = library.CM_Locate_DevNodeW
        self._locate.argtypes = (ctypes.POINTER(ctypes.c_uint32), ctypes.c_wchar_p, ctypes.c_uint32)
        self._property = library.CM_Get_DevNode_PropertyW
        self._property.argtypes = (
            ctypes.c_uint32,
            ctypes.POINTER(PropertyKey),
            ctypes.POINTER(ctypes.c_uint32),
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_uint32),
            ctypes.c_uint32,
        )
        for function in (self._size, self._list, self._locate, self._property):
            function.restype = ctypes.c_uint32

    def instances(self, wanted: str, kind: int) -> list[str]:
        """Return the ids of the device instances that are present.

        Args:
            wanted: a device class as GUID text, or an enumerator such as ``PCI``.
            kind: ``FILTER_CLASS`` or ``FILTER_ENUMERATOR``, as ``wanted`` requires.
        """
        flags = kind | FILTER_PRESENT
        length = ctypes.c_uint32()
        code = BUFFER_SMALL
        while code == BUFFER_SMALL:  # a device may be added between the two calls
            if self._size(ctypes.byref(length), wanted, flags) != SUCCESS or not length.value:
                return []
            buffer = (ctypes.c_uint16 * length.value)()
            code = self._list(wanted, buffer, length, flags)
        return split_strings(bytes(buffer)) if code == SUCCESS else []

    def locate(self, instance: str) -> int | None:
        """Return the device node of an instance, or None if it is not present."""
        node = ctypes.c_uint32()
        return node.value if self._locate(ctypes.byref(node), instance, LOCATE_NORMAL) == SUCCESS else None

    def read(self, node: int, key: PropertyKey, kind: int) -> bytes:
        """Return the bytes of a property; empty if the device does not have it, or has it with another type."""
        found, size = ctypes.c_uint32(), ctypes.c_uint32(1024)
        buffer = (ctypes.c_uint8 * size.value)()
        code = self._property(node, ctypes.byref(key), ctypes.byref(found), buffer, ctypes.byref(size), 0)
        return bytes(buffer)[: size.value] if code == SUCCESS and found.value == kind else b""

    def problem(self, node: int) -> int:
        """Return the Device Manager's problem code; 0 for none."""
        return int.from_bytes(self.read(node, PROBLEM_CODE, TYPE_UINT32), "little")

    def text(self, node: int, key: PropertyKey) -> str:
        """Return a string property; empty if the device does not have it."""
        return next(iter(split_strings(self.read(node, key, TYPE_STRING))), "")


def split_strings(data: bytes) -> list[str]:
    """Split a list of null-terminated UTF-16 strings."""
    return [item for item in data.decode("utf-16-le", "replace").split("\0") if item]
