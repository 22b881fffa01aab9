"""Records of NPUs and systems, and the known generations of Intel NPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from phi3_core.backend import values_of

INTEL, AMD, QUALCOMM = 0x8086, 0x1022, 0x17CB
"""PCI vendor ids."""
AMD_NPUS = {0x1502, 0x17F0}
"""PCI device ids, from Linux's drivers/accel/amdxdna/amdxdna_pci_drv.c."""
_VIRTUAL = re.compile(
    r"virtual machine|virtualbox|vmware|qemu|kvm|bochs|xen|hvm domu|cloud hypervisor|firecracker", re.IGNORECASE
)


@frozen(kw_only=True)
class Generation:
    """A generation of Intel NPUs."""

    name: str
    linux_driver: tuple[int, int]
    """The first release of linux-npu-driver that supports it; (0, 0) if unknown."""
    known_to_library: bool
    """Whether the library's OpenVINO (2024.4) lists this NPU."""


# PCI device ids from Linux's drivers/accel/ivpu/ivpu_drv.h.
GENERATIONS: Mapping[int, Generation] = {
    0x7D1D: Generation(name="Meteor Lake", linux_driver=(1, 0), known_to_library=True),
    0xAD1D: Generation(name="Arrow Lake", linux_driver=(1, 5), known_to_library=True),
    0x643E: Generation(name="Lunar Lake", linux_driver=(1, 5), known_to_library=True),
    0xB03E: Generation(name="Panther Lake", linux_driver=(1, 28), known_to_library=False),
    0xFD3E: Generation(name="Wildcat Lake", linux_driver=(0, 0), known_to_library=False),
    0xD71D: Generation(name="Nova Lake", linux_driver=(0, 0), known_to_library=False),
}


@frozen(kw_only=True)
class Npu:
    """An NPU or another compute accelerator, as reported by the operating system."""

    vendor: int
    """PCI vendor id; 0 if it is not a PCI device."""
    device: int
    """PCI device id; 0 if it is not a PCI device."""
    place: str
    """PCI address on Linux, device instance id on Windows."""
    name: str = ""
    """The name in Windows; empty on Linux."""
    driver: str = ""
    """Version of the driver, on Linux of the user-space driver; empty if there is none."""
    kernel_driver: str = ""
    """Linux: the kernel driver bound to the device."""
    node: str = ""
    """Linux: the path of the device file."""
    node_group: str | None = None
    """Linux: the group of the device file; None if the file does not exist."""
    accessible: bool = False
    """Linux: whether this user may read and write the device file."""
    problem: int = 0
    """Windows: the Device Manager's problem code; 0 for none."""


def _npus(given: Any) -> Any:
    return values_of(Npu, given)


@frozen(kw_only=True)
class System:
    """A system and its NPUs, as reported by the operating system."""

    npus: tuple[Npu, ...] = field(default=(), converter=_npus)
    cpu: str = ""
    """The name of the processor."""
    virtual: bool = False
    """Whether this is a virtual machine."""
    wsl: bool = False
    """Whether this is the Windows Subsystem for Linux."""
    loader: str = ""
    """The path of the Level Zero loader; empty if it is not installed."""
    kernel: str = ""
    """Linux: the release of the kernel."""


def known(vendor: int, device: int) -> bool:
    """Return whether these PCI ids belong to a known NPU."""
    return (vendor == INTEL and device in GENERATIONS) or (vendor == AMD and device in AMD_NPUS)


def looks_virtual(*names: str) -> bool:
    """Return whether one of the manufacturer and product names is that of a virtual machine."""
    return any(_VIRTUAL.search(name) for name in names)
