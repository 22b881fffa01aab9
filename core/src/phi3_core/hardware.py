"""GPUs and NPUs that the system lists, and the backends that would drive them. No driver is loaded or asked."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from attrs import frozen

from .distributions import canonical_name

_VENDORS = {0x8086: "Intel", 0x1002: "AMD", 0x10DE: "NVIDIA"}
# Class 12 has other accelerators too, such as FPGAs. Meteor, Arrow, Lunar, Panther, Wildcat and Nova Lake.
_INTEL_NPUS = {0x7D1D, 0xAD1D, 0x643E, 0xB03E, 0xFD3E, 0xD71D}
_DISPLAY = "03"  # the PCI class of display controllers
_WINDOWS_DISPLAY = "{4D36E968-E325-11CE-BFC1-08002BE10318}"
_PCI = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)


@frozen(kw_only=True)
class Hardware:
    """A device on the PCI bus that a backend might drive."""

    kind: str
    """``gpu`` (integrated or discrete) or ``npu``."""
    vendor: str
    number: str
    """The PCI ids of vendor and device, e.g. ``8086:643e``."""

    @property
    def name(self) -> str:
        """The name to display."""
        return f"{self.vendor} {self.kind.upper()} (PCI {self.number})"

    def distributions(self, system: str) -> tuple[str, ...]:
        """Return the distributions of this project with a backend for it on a system, the best first."""
        found = ["phi3-openvino"] if self.vendor == "Intel" else []
        if system == "windows" and self.kind == "gpu":
            found.append("phi3-dml")
        return tuple(found)


def present(root: Path = Path("/")) -> tuple[Hardware, ...]:
    """Return the GPUs and NPUs of this machine, each kind of device once.

    Args:
        root: the root of the file system, for tests.
    """
    try:
        ids = _on_windows() if sys.platform == "win32" else _on_linux(root)
        return tuple(dict.fromkeys(found for each in ids if (found := recognize(each[0], each[1], display=each[2]))))
    except (OSError, AttributeError, ValueError):  # no such folders, or a Windows without these functions
        return ()


def without_backend(
    hardware: Iterable[Hardware], system: str, *, installed: Collection[str], kinds: Collection[str]
) -> Iterator[tuple[Hardware, str]]:
    """Yield the devices that no installed backend is for, each with a command that installs one.

    Args:
        hardware: the devices.
        system: the system, as in :class:`~phi3_core.values.Machine`.
        installed: names of the installed distributions with backends, working or not.
        kinds: the kinds of device that the backends offer: a third party's may drive it too.
    """
    names = {canonical_name(name) for name in installed}
    driven = {"gpu" if kind == "dgpu" else kind for kind in kinds}
    for each in hardware:
        found = each.distributions(system)
        if found and each.kind not in driven and not names.intersection(found):
            yield each, f"pip install {found[0]}"


def recognize(vendor: int, device: int, *, display: bool) -> Hardware | None:
    """Return what a PCI device is; None if it is of no vendor that is known, or something else."""
    if vendor not in _VENDORS:
        return None  # virtual machines have adapters of their own
    is_npu = vendor == 0x8086 and device in _INTEL_NPUS
    if not display and not is_npu:
        return None
    return Hardware(kind="npu" if is_npu else "gpu", vendor=_VENDORS[vendor], number=f"{vendor:04x}:{device:04x}")


def _on_linux(root: Path) -> Iterator[tuple[int, int, bool]]:
    for folder in sorted((root / "sys/bus/pci/devices").iterdir()):
        with contextlib.suppress(OSError, ValueError):
            text = (folder / "uevent").read_text(encoding="ascii", errors="replace")
            facts = dict(line.partition("=")[::2] for line in text.splitlines())
            vendor, device = (int(number, 16) for number in facts.get("PCI_ID", "").split(":"))
            yield vendor, device, facts.get("PCI_CLASS", "").zfill(6).startswith(_DISPLAY)


def _on_windows() -> Iterator[tuple[int, int, bool]]:
    from .windows import COMPUTE_ACCELERATOR, FILTER_CLASS, DeviceManager  # start-up: ctypes, which only Windows needs

    manager = DeviceManager()
    for name in (_WINDOWS_DISPLAY, COMPUTE_ACCELERATOR):
        for instance in manager.instances(name, FILTER_CLASS):
            if (ids := _PCI.match(instance)) is not None:
                yield int(ids[1], 16), int(ids[2], 16), name == _WINDOWS_DISPLAY
