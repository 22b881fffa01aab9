"""What Linux says of NPUs: files of sysfs and the loader's cache, and nothing else is asked."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .records import INTEL, Npu, System, known, looks_virtual

_ACCELERATOR = "1200"  # the PCI class "processing accelerators"
_LIBRARY_FOLDERS = ("lib", "usr/lib", "lib64", "usr/lib64", "usr/local/lib", "usr/lib/x86_64-linux-gnu")
_LOADER = "libze_loader.so.1"
# The driver's library was renamed in its release 1.16.
_DRIVERS = ("libze_intel_npu.so.1", "libze_intel_vpu.so.1")


def read(root: Path = Path("/")) -> System:
    """Look below ``root``."""
    kernel = _text(root / "proc/sys/kernel/osrelease")
    cpu = _head(root / "proc/cpuinfo")
    libraries = Libraries(root)
    driver = _driver_version(libraries)
    return System(
        npus=[npu for folder in _entries(root / "sys/bus/pci/devices") if (npu := _npu(root, folder, driver))],
        cpu=_field(cpu, "model name"),
        virtual=_virtual(root, cpu),
        wsl="microsoft" in kernel.lower(),
        loader=str(libraries.find(_LOADER) or ""),
        kernel=kernel,
    )


def _npu(root: Path, folder: Path, driver: str) -> Npu | None:
    # One file has all that is needed of most devices, and there may be a hundred of them.
    facts = dict(line.partition("=")[::2] for line in _text(folder / "uevent").splitlines())
    vendor, device = (_number(text) for text in facts.get("PCI_ID", "").partition(":")[::2])
    accelerator = facts.get("PCI_CLASS", "").zfill(6).startswith(_ACCELERATOR)
    if not known(vendor, device) and not (vendor == INTEL and accelerator):
        return None
    names = [entry.name for entry in _entries(folder / "accel") if entry.name.startswith("accel")]
    node = root / "dev/accel" / names[0] if names else None
    return Npu(
        vendor=vendor,
        device=device,
        place=folder.name,
        driver=driver if vendor == INTEL else "",
        kernel_driver=facts.get("DRIVER", ""),
        node=str(node or ""),
        node_group=_group(node) if node else None,
        accessible=node is not None and _accessible(node),
    )


def _accessible(node: Path) -> bool:
    # What counts is the user that this process acts as, where the system can tell it from the one that started it.
    return os.access(node, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _group(node: Path) -> str | None:
    """The group of a file, by name or number; None if there is no file."""
    if sys.platform == "win32":  # keeps the type checker off grp there
        return None
    import grp

    try:
        number = node.stat().st_gid
    except OSError:
        return None
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _driver_version(libraries: Libraries) -> str:
    """The release of linux-npu-driver, which its library has at the end of its file name; ``0`` if it is unnamed."""
    for name in _DRIVERS:
        if (library := libraries.find(name)) is not None:
            found = re.search(r"\.so\.(\d+(?:\.\d+)+)$", os.path.realpath(library))
            return found[1] if found else "0"
    return ""


class Libraries:
    """Finds the library that a program is given for a name, in the loader's own order."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache = b""
        with contextlib.suppress(OSError):
            self._cache = (root / "etc/ld.so.cache").read_bytes()

    def find(self, name: str) -> Path | None:
        """Look in the environment's folders, in the loader's cache, and in the usual folders."""
        folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
        # The cache's paths are strings that end with a zero, and each begins behind another one's end.
        end = self._cache.find(b"/" + name.encode() + b"\0")
        if end >= 0:
            start = self._cache.rfind(b"\0", 0, end) + 1
            folders.append(self._root / os.fsdecode(self._cache[start:end]).lstrip("/"))
        folders += [self._root / folder for folder in _LIBRARY_FOLDERS]
        return next((folder / name for folder in folders if (folder / name).exists()), None)


def _virtual(root: Path, cpu: str) -> bool:
    identity = root / "sys/class/dmi/id"
    return " hypervisor " in f"{_field(cpu, 'flags')} " or looks_virtual(
        _text(identity / "sys_vendor"), _text(identity / "product_name")
    )


def _field(cpuinfo: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:(.*)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _entries(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(folder.iterdir())


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _head(file: Path) -> str:
    """The first processor's part: a machine with many has a file that takes long to read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(8192)
    except OSError:
        return ""


def _number(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
