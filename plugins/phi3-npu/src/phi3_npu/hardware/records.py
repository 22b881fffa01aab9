"""The plain records that detection reads and judges, and what is known of Intel's NPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from phi3_core.backend import values_of

INTEL, AMD, QUALCOMM = 0x8086, 0x1022, 0x17CB
"""PCI vendors."""
AMD_NPUS = {0x1502, 0x17F0}
"""PCI devices, from Linux's drivers/accel/amdxdna/amdxdna_pci_drv.c."""
_VIRTUAL = re.compile(
    r"virtual machine|virtualbox|vmware|qemu|kvm|bochs|xen|hvm domu|cloud hypervisor|firecracker", re.IGNORECASE
)


@frozen(kw_only=True)
class Generation:
    """One generation of Intel's NPU."""

    name: str
    linux_driver: tuple[int, int]
    """The first release of linux-npu-driver with it; (0, 0) if none is known."""
    known_to_library: bool
    """Whether the library's OpenVINO (2024.4) has this NPU in its list."""


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
    """An NPU, or another compute accelerator, as the operating system sees it."""

    vendor: int
    """PCI vendor, or 0 if it is not a PCI device."""
    device: int
    place: str
    """PCI address on Linux, device instance on Windows."""
    name: str = ""
    """What the operating system calls it; nothing on Linux."""
    driver: str = ""
    """Version of the user-space driver on Linux, of the driver on Windows; empty if there is none."""
    kernel_driver: str = ""
    """Linux: the kernel driver that is bound to it."""
    node: str = ""
    """Linux: its device file, as the kernel names it."""
    node_group: str | None = None
    """Linux: the group that the device file belongs to; None if the file does not exist."""
    accessible: bool = False
    """Linux: whether this user may read and write the device file."""
    problem: int = 0
    """Windows: the Device Manager's code, 0 for none."""


def _npus(given: Any) -> Any:
    return values_of(Npu, given)


@frozen(kw_only=True)
class System:
    """What the operating system tells."""

    npus: tuple[Npu, ...] = field(default=(), converter=_npus)
    cpu: str = ""
    virtual: bool = False
    """Whether it is a virtual machine."""
    wsl: bool = False
    """Whether it is Windows' subsystem for Linux."""
    loader: str = ""
    """The Level Zero loader that programs find, or nothing."""
    kernel: str = ""


def known(vendor: int, device: int) -> bool:
    """Whether these PCI ids are an NPU's, whatever its driver and its class."""
    return (vendor == INTEL and device in GENERATIONS) or (vendor == AMD and device in AMD_NPUS)


def looks_virtual(*names: str) -> bool:
    """Whether a computer's maker or product name is that of a virtual machine."""
    return any(_VIRTUAL.search(name) for name in names)
