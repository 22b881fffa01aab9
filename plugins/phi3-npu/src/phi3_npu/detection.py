"""Detection of the NPUs that the Intel NPU Acceleration Library supports.

:mod:`phi3_npu.hardware` reads device records from the operating system; :func:`judge` converts them to offers and
refusals without accessing the system.
"""

from __future__ import annotations

from collections.abc import Iterator

from phi3_core.values import Device, Machine, Offer, Refusal

from .hardware.records import AMD, GENERATIONS, INTEL, QUALCOMM, Npu, System

LEAST_WINDOWS_DRIVER = (32, 0, 100, 2408)
"""Oldest supported Windows driver. The library requires 2408 (``backend/utils.py``), the last part of this version.

On Linux the library's check always passes, because it compares with the build time of the driver in seconds. There,
detection requires the first release for the NPU's generation (``Generation.linux_driver``).
"""
PRECISIONS = ("int8", "int4", "fp16")
_WINDOWS_DRIVER_PAGE = "https://www.intel.com/content/www/us/en/download/794734/intel-npu-driver-windows.html"
_LINUX_DRIVER_PAGE = "https://github.com/intel/linux-npu-driver/releases"
_DISABLED, _NO_DRIVER = 22, 28  # CM_PROB_DISABLED and CM_PROB_FAILED_INSTALL of Windows' Device Manager
_OTHERS = {AMD: "AMD", QUALCOMM: "Qualcomm"}


def detect(machine: Machine) -> list[Offer | Refusal]:
    """Return offers and refusals for this machine. Takes some milliseconds, because it does not import the library."""
    from . import requirements

    obstacle = requirements.missing(machine)
    return [obstacle] if obstacle is not None else judge(machine, read(machine))


def read(machine: Machine) -> System:
    """Return the system and its NPUs, as reported by the operating system."""
    if machine.os == "linux":
        from .hardware import sysfs

        return sysfs.read()
    if machine.os == "windows":
        from .hardware import cfgmgr

        return cfgmgr.read()
    return System()


def judge(machine: Machine, system: System) -> list[Offer | Refusal]:
    """Return offers for usable devices and refusals for the others."""
    answers: list[Offer | Refusal] = []
    usable: list[Npu] = []
    for npu in system.npus:
        refusal = refuse(machine.os, npu, system)
        if refusal is None:
            usable.append(npu)
        else:
            answers.append(refusal)
    if usable:
        answers.insert(0, _offer(machine, usable))
    elif not system.npus:
        answers.append(_absent(machine.os, system))
    return [*answers, _cpu(machine, system)]


def refuse(system_name: str, npu: Npu, system: System) -> Refusal | None:
    """Return why a device cannot be used, or None if it can.

    Args:
        system_name: the operating system, ``linux`` or ``windows``.
        npu: the device.
        system: the system and its NPUs.
    """
    if npu.vendor != INTEL:
        maker = _OTHERS.get(npu.vendor, "")
        name = npu.name or (f"an {maker} NPU" if maker else "an accelerator")
        return Refusal(
            reason=f"{name} is here, but this backend drives Intel's NPUs only",
            remedy="pip install phi3-dml" if system_name == "windows" else "",
        )
    return _refuse_linux(npu, system) if system_name == "linux" else _refuse_windows(npu)


def describe(npu: Npu) -> str:
    """Return the name of an NPU with its generation."""
    generation = GENERATIONS.get(npu.device)
    where = generation.name if generation else f"unknown generation, device {npu.device:04x}"
    return f"{npu.name or 'Intel NPU'} ({where})"


def version(text: str) -> tuple[int, ...]:
    """Return the numeric parts of a version; empty if ``text`` is."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _refuse_linux(npu: Npu, system: System) -> Refusal | None:
    name = describe(npu)
    if npu.kernel_driver != "intel_vpu":
        return Refusal(
            reason=f"{name}: the kernel ({system.kernel}) has no driver for it, or has not loaded it",
            remedy="sudo modprobe intel_vpu",
        )
    if not npu.node or npu.node_group is None:
        return Refusal(
            reason=f"{name}: its device file {npu.node or '/dev/accel/accel*'} is missing",
            remedy="start the container with --device /dev/accel, if this is one; else restart Linux",
        )
    if not npu.accessible:
        return Refusal(reason=f"{name}: no permission to read and write {npu.node}", remedy=_permit(npu))
    return _refuse_libraries(npu, system)


def _permit(npu: Npu) -> str:
    group = npu.node_group
    give = ""
    if group not in ("render", "video"):
        group = "render"
        give = f"sudo chown root:{group} {npu.node}, then sudo chmod g+rw {npu.node}, then "
    return f"{give}sudo usermod -aG {group} $USER, then log out and in again"


def _refuse_libraries(npu: Npu, system: System) -> Refusal | None:
    name = describe(npu)
    if not system.loader:
        return Refusal(
            reason=f"{name}: libze_loader.so.1, the Level Zero loader, is not installed",
            remedy="install Level Zero (on Ubuntu: libze1; else https://github.com/oneapi-src/level-zero/releases)",
        )
    if not npu.driver:
        return Refusal(
            reason=f"{name}: its user-space driver, libze_intel_npu.so.1, is not installed",
            remedy=f"install linux-npu-driver: {_LINUX_DRIVER_PAGE}",
        )
    generation = GENERATIONS.get(npu.device)
    least = generation.linux_driver if generation else (0, 0)
    if version(npu.driver) < least:
        return Refusal(
            reason=f"{name}: its driver {npu.driver} is too old; {least[0]}.{least[1]} is the first for it",
            remedy=f"install a newer linux-npu-driver: {_LINUX_DRIVER_PAGE}",
        )
    return None


def _refuse_windows(npu: Npu) -> Refusal | None:
    name = describe(npu)
    install = f"install the newest NPU driver: {_WINDOWS_DRIVER_PAGE}"
    if npu.problem == _DISABLED:
        return Refusal(reason=f"{name}: it is disabled", remedy="enable it in the Device Manager (devmgmt.msc)")
    if npu.problem == _NO_DRIVER or not npu.driver:
        return Refusal(reason=f"{name}: it has no driver", remedy=install)
    if npu.problem:
        return Refusal(
            reason=f"{name}: Windows stopped it (code {npu.problem} in the Device Manager)",
            remedy=f"restart Windows; if it stays, {install}",
        )
    if version(npu.driver) < LEAST_WINDOWS_DRIVER:
        least = ".".join(map(str, LEAST_WINDOWS_DRIVER))
        return Refusal(
            reason=f"{name}: its driver {npu.driver} is too old; the library wants {least} or newer", remedy=install
        )
    return None


def _offer(machine: Machine, usable: list[Npu]) -> Offer:
    """Return one offer for all NPUs: the library opens ``NPU`` and chooses among them itself."""
    first = usable[0]
    generation = GENERATIONS.get(first.device)
    known = generation is not None and generation.known_to_library
    return Offer(
        device=Device(
            backend="npu",
            id="NPU",
            kind="npu",
            name=describe(first),
            memory_bytes=machine.memory_bytes,
            driver=first.driver,
        ),
        precisions=PRECISIONS,
        maturity="legacy",
        notes="; ".join(_notes(usable, known=known)),
        automatic=known,
    )


def _notes(usable: list[Npu], *, known: bool) -> Iterator[str]:
    yield "the library was archived in April 2025; phi3-openvino drives the same NPU, and runs more of a model on it"
    yield "this project has not been run on an NPU yet"
    if not known:
        yield "the library is older than this NPU, so it is used only when named: --device npu:NPU"
    if len(usable) > 1:
        yield f"the library uses one of the {len(usable)} NPUs, and chooses by itself"


def _cpu(machine: Machine, system: System) -> Offer:
    return Offer(
        device=Device(
            backend="npu",
            id="CPU",
            kind="cpu",
            name=f"{system.cpu or machine.architecture} (the NPU library without an NPU)",
            memory_bytes=machine.memory_bytes,
        ),
        precisions=PRECISIONS,
        maturity="legacy",
        notes="the NPU library's fallback on the CPU: for tests, and slower than any other backend",
        automatic=False,
    )


def _absent(system_name: str, system: System) -> Refusal:
    cpu = f" ({system.cpu})" if system.cpu else ""
    if system.wsl:
        return Refusal(
            reason="Windows passes no NPU on to its subsystem for Linux", remedy="run phi3 in Windows itself"
        )
    if system.virtual:
        return Refusal(
            reason="no Intel NPU: this is a virtual machine, and its host has not passed one on",
            remedy="run on the host itself, or pass the PCI device (class 1200) through to the machine",
        )
    remedy = ""
    if "Core(TM) Ultra" in system.cpu:
        remedy = "this processor has one: switch it on in the firmware's setup (BIOS), and update " + (
            "the kernel" if system_name == "linux" else "Windows"
        )
    return Refusal(reason=f"this computer has no Intel NPU{cpu}", remedy=remedy)
