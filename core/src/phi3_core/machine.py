"""The properties of this machine, and a fingerprint of its drivers."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .cgroups import memory_limit
from .values import Machine

# The module platform is not used: on Windows it asks WMI since Python 3.12, which takes seconds, hangs or crashes
# (python/cpython#112278, #125315).
_SYSTEMS = {"win32": "windows", "darwin": "macos"}
_ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}

# On Linux these change when a driver, device node or user-space library is added or removed, or its access changes.
_LINUX_DEVICE_FOLDERS = ("/dev/accel", "/dev/dri")
_LINUX_DRIVER_VERSIONS = ("/sys/module/intel_vpu", "/sys/module/xe", "/sys/module/i915", "/sys/module/amdgpu")
_LINUX_LIBRARIES = ("/etc/ld.so.cache", "/etc/OpenCL/vendors")
# Changes at each boot, because devices are enabled in the firmware, plugged in or removed while the machine is off.
_LINUX_BOOT = "/proc/sys/kernel/random/boot_id"
# The library search path, which comes before the cache; and whether a Windows session is local or remote.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "SESSIONNAME")
# Device classes whose subkeys hold a DriverVersion: display adapters and compute accelerators.
_WINDOWS_CLASSES = ("{4d36e968-e325-11ce-bfc1-08002be10318}", "{f01a9d53-3ff6-48d2-9f97-c8a7004be10c}")


def this_machine() -> Machine:
    """Return the properties of this machine. The first call takes tens of milliseconds to import psutil.

    In a container or another control group of Linux, the memory is what the group may use.
    """
    import psutil  # start-up: most of this function's time

    battery = None
    # Without a power supply, as in containers and some virtual machines, psutil raises various exceptions.
    with contextlib.suppress(Exception):
        battery = psutil.sensors_battery()
    architecture = _architecture().lower()
    return Machine(
        os=_SYSTEMS.get(sys.platform, sys.platform),
        architecture=_ARCHITECTURES.get(architecture, architecture or "unknown"),
        memory_bytes=min(psutil.virtual_memory().total, memory_limit() or sys.maxsize),
        on_battery=battery is not None and battery.power_plugged is False,
    )


def system_version() -> str:
    """Return the system's name and version, as ``Linux 6.1.0 (#1 SMP …)`` or ``Windows 10.0.26100``."""
    if sys.platform == "win32":
        return "Windows " + ".".join(map(str, sys.getwindowsversion().platform_version))
    found = os.uname()
    return f"{found.sysname} {found.release} ({found.version})"


def _architecture() -> str:
    if sys.platform == "win32":
        # The first is set if this process is emulated as 32 bits.
        return os.environ.get("PROCESSOR_ARCHITEW6432") or os.environ.get("PROCESSOR_ARCHITECTURE", "")
    return os.uname().machine


def driver_fingerprint() -> tuple[str, ...]:
    """Return strings that change when a driver is installed, updated or becomes accessible. Loads no driver."""
    facts = [system_version()]
    facts += [f"{name} {os.environ.get(name, '')}" for name in _ENVIRONMENT]
    if sys.platform == "linux":
        facts += _linux_facts()
    elif sys.platform == "win32":
        facts += _windows_facts()
        with contextlib.suppress(OSError, AttributeError):
            facts += _windows_devices()
    return tuple(facts)


def _linux_facts() -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield Path(_LINUX_BOOT).read_text(encoding="ascii").strip()
    for folder in map(Path, _LINUX_DEVICE_FOLDERS):
        with contextlib.suppress(OSError):
            for node in sorted(folder.iterdir()):
                yield f"{node} {os.access(node, os.R_OK | os.W_OK)}"
    for module in map(Path, _LINUX_DRIVER_VERSIONS):
        for name in ("version", "srcversion"):
            with contextlib.suppress(OSError):
                yield f"{module.name} {(module / name).read_text(encoding='ascii').strip()}"
    for library in map(Path, _LINUX_LIBRARIES):
        with contextlib.suppress(OSError):
            yield f"{library} {library.stat().st_mtime_ns}"


def _windows_facts() -> list[str]:
    facts: list[str] = []
    if sys.platform == "win32":  # for type checkers: winreg exists on Windows only
        import winreg

        for name in _WINDOWS_CLASSES:
            path = rf"SYSTEM\CurrentControlSet\Control\Class\{name}"
            with contextlib.suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                for index in range(winreg.QueryInfoKey(key)[0]):
                    with contextlib.suppress(OSError), winreg.OpenKey(key, winreg.EnumKey(key, index)) as device:
                        facts.append(f"{name} {index} {winreg.QueryValueEx(device, 'DriverVersion')[0]}")
    return facts


def _windows_devices() -> list[str]:
    """Return the devices of these classes that are present, with problem codes: a disabled device keeps its driver."""
    from .windows import FILTER_CLASS, DeviceManager  # start-up: ctypes, which only Windows needs

    manager = DeviceManager()
    facts = []
    for name in _WINDOWS_CLASSES:
        for instance in manager.instances(name, FILTER_CLASS):
            node = manager.locate(instance)
            facts.append(f"{instance} {manager.problem(node) if node is not None else 'gone'}")
    return facts
