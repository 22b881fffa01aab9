"""What Windows says of NPUs, through the configuration manager (cfgmgr32.dll).

Layouts, constants and keys are those of ``cfgmgr32.h``, ``devpropdef.h`` and ``devpkey.h``. The module imports
everywhere, so that they can be held against these headers everywhere.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from .records import Npu, System, known, looks_virtual

COMPUTE_ACCELERATOR = "{F01A9D53-3FF6-48D2-9F97-C8A7004BE10C}"
"""The device class of NPUs."""
FILTER_ENUMERATOR, FILTER_PRESENT, FILTER_CLASS = 0x1, 0x100, 0x200
LOCATE_NORMAL = 0
SUCCESS, BUFFER_SMALL = 0x00, 0x1A
TYPE_UINT32, TYPE_STRING = 0x07, 0x12
_BIOS = ("SystemManufacturer", "SystemProductName")
_PCI = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)


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


def _key(fmtid: str, pid: int) -> PropertyKey:
    return PropertyKey(Guid.from_buffer_copy(uuid.UUID(fmtid).bytes_le), pid)


DESCRIPTION = _key("a45c254e-df1c-4efd-8020-67d146a850e0", 2)
DRIVER_VERSION = _key("a8b865dd-2e3d-4094-ad97-e593a70c75d6", 3)
PROBLEM_CODE = _key("4340a6c5-93fa-4706-972c-7b648008a5a7", 3)


def read() -> System:
    """Ask Windows."""
    return System(
        npus=npus(Manager()),
        cpu=_registry(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString"),
        virtual=looks_virtual(*(_registry(r"HARDWARE\DESCRIPTION\System\BIOS", name) for name in _BIOS)),
        loader=_loader(),
    )


def npus(manager: Manager) -> list[Npu]:
    """Every device of the class, and every PCI device that is known to be an NPU: without a driver it has no class."""
    places = dict.fromkeys(manager.instances(COMPUTE_ACCELERATOR, FILTER_CLASS))
    places.update(dict.fromkeys(place for place in manager.instances("PCI", FILTER_ENUMERATOR) if known(*pci(place))))
    return [manager.npu(place) for place in places]


def pci(place: str) -> tuple[int, int]:
    """PCI vendor and device from a device instance; zeros if it is none."""
    found = _PCI.match(place)
    return (int(found[1], 16), int(found[2], 16)) if found else (0, 0)


class Manager:
    """The functions of cfgmgr32.dll that are needed."""

    def __init__(self) -> None:
        # Only ever made on Windows, of the library in its own folder.
        library: Any = getattr(ctypes, "WinDLL")("cfgmgr32.dll", winmode=0x800)  # noqa: B009 - elsewhere it does not exist
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
        """The device instances that are present, of one class or one enumerator."""
        flags = kind | FILTER_PRESENT
        length = ctypes.c_uint32()
        code = BUFFER_SMALL
        while code == BUFFER_SMALL:  # a device may arrive between the two calls
            if self._size(ctypes.byref(length), wanted, flags) != SUCCESS or not length.value:
                return []
            buffer = (ctypes.c_uint16 * length.value)()
            code = self._list(wanted, buffer, length, flags)
        return split(bytes(buffer)) if code == SUCCESS else []

    def npu(self, place: str) -> Npu:
        """What is known of one device instance."""
        vendor, device = pci(place)
        node = ctypes.c_uint32()
        if self._locate(ctypes.byref(node), place, LOCATE_NORMAL) != SUCCESS:
            return Npu(vendor=vendor, device=device, place=place)
        problem = self._read(node, PROBLEM_CODE, TYPE_UINT32)
        return Npu(
            vendor=vendor,
            device=device,
            place=place,
            name=text(self._read(node, DESCRIPTION, TYPE_STRING)),
            driver=text(self._read(node, DRIVER_VERSION, TYPE_STRING)),
            problem=int.from_bytes(problem, "little"),
        )

    def _read(self, node: ctypes.c_uint32, key: PropertyKey, kind: int) -> bytes:
        found, size = ctypes.c_uint32(), ctypes.c_uint32(1024)
        buffer = (ctypes.c_uint8 * size.value)()
        code = self._property(node, ctypes.byref(key), ctypes.byref(found), buffer, ctypes.byref(size), 0)
        return bytes(buffer)[: size.value] if code == SUCCESS and found.value == kind else b""


def split(data: bytes) -> list[str]:
    """The strings of a list in UTF-16, each ended by a zero and the list by one more."""
    return [item for item in data.decode("utf-16-le", "replace").split("\0") if item]


def text(data: bytes) -> str:
    """A string property; empty if there is none."""
    return next(iter(split(data)), "")


def _registry(path: str, name: str) -> str:
    if sys.platform == "win32":
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return " ".join(str(winreg.QueryValueEx(key, name)[0]).split())
        except OSError:
            pass
    return ""


def _loader() -> str:
    file = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "ze_loader.dll")
    return str(file) if file.exists() else ""
