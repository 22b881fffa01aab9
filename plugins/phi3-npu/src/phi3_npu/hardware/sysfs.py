"""NPUs on Linux, read from sysfs, procfs and the dynamic loader's cache."""

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
# linux-npu-driver renamed its library in release 1.16.
_DRIVERS = ("libze_intel_npu.so.1", "libze_intel_vpu.so.1")


def read(root: Path = Path("/")) -> System:
    """Return the system and its NPUs, as reported by Linux in files below ``root``."""
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
    # One file is enough for most of the devices, of which there may be a hundred.
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
    # The effective user counts, where os.access supports it.
    return os.access(node, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _group(node: Path) -> str | None:
    """Return the group of a file, by name or number; None if there is no file."""
    if sys.platform == "win32":  # for the type checker: Windows has no grp
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
    """Return the release of linux-npu-driver from its library's file name; ``0`` if the name has none."""
    for name in _DRIVERS:
        if (library := libraries.find(name)) is not None:
            found = re.search(r"\.so\.(\d+(?:\.\d+)+)$", os.path.realpath(library))
            return found[1] if found else "0"
    return ""


class Libraries:
    """Finds shared libraries in the order of the dynamic loader."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cache = b""
        with contextlib.suppress(OSError):
            self._cache = (root / "etc/ld.so.cache").read_bytes()

    def find(self, name: str) -> Path | None:
        """Return the path of a library from ``LD_LIBRARY_PATH``, the loader's cache or the usual folders, or None."""
        folders = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
        # The cache holds null-terminated paths one after another.
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
    """Return the first 8 KiB, which cover the first processor: with many of them the file is slow to read."""
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
