"""NPUs on Windows, read from the device manager (CfgMgr32) and the registry."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from phi3_core.backend import (
    COMPUTE_ACCELERATOR,
    DEVICE_DESCRIPTION,
    DRIVER_VERSION,
    FILTER_CLASS,
    FILTER_ENUMERATOR,
    DeviceManager,
)

from .records import Npu, System, known, looks_virtual

_BIOS = ("SystemManufacturer", "SystemProductName")
_PCI = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)


def read() -> System:
    """Return the system and its NPUs, as reported by Windows."""
    return System(
        npus=npus(DeviceManager()),
        cpu=_registry(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString"),
        virtual=looks_virtual(*(_registry(r"HARDWARE\DESCRIPTION\System\BIOS", name) for name in _BIOS)),
        loader=_loader(),
    )


def npus(manager: DeviceManager) -> list[Npu]:
    """Return all devices of the class for compute accelerators, and all PCI devices known to be NPUs.

    A device without a driver has no class.
    """
    places = dict.fromkeys(manager.instances(COMPUTE_ACCELERATOR, FILTER_CLASS))
    places.update(dict.fromkeys(place for place in manager.instances("PCI", FILTER_ENUMERATOR) if known(*pci(place))))
    return [npu(manager, place) for place in places]


def pci(place: str) -> tuple[int, int]:
    """Return the PCI vendor and device ids in a device instance id; zeros if it is not a PCI device."""
    found = _PCI.match(place)
    return (int(found[1], 16), int(found[2], 16)) if found else (0, 0)


def npu(manager: DeviceManager, place: str) -> Npu:
    """Return the record of a device instance."""
    vendor, device = pci(place)
    node = manager.locate(place)
    if node is None:
        return Npu(vendor=vendor, device=device, place=place)
    return Npu(
        vendor=vendor,
        device=device,
        place=place,
        name=manager.text(node, DEVICE_DESCRIPTION),
        driver=manager.text(node, DRIVER_VERSION),
        problem=manager.problem(node),
    )


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
