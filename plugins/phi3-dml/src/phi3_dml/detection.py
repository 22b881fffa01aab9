"""Detection of the adapters that ONNX Runtime GenAI supports through DirectML.

:mod:`phi3_dml.adapters` reads records of adapters from Windows; :func:`judge` converts them to offers and refusals
without accessing the system.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from phi3_core.errors import BackendError
from phi3_core.values import Device, Machine, Offer, Refusal

from . import flavours, refusals, runtime
from .adapters.records import INTEL, NVIDIA, QUALCOMM, VENDORS, Adapter, Core, Reading, Trial
from .flavours import Flavours
from .runtime import Reported

DIRECTX = ("directml", "winml")
"""The flavours of ONNX Runtime GenAI that support DirectX 12 devices."""
DML_PRECISIONS = ("int4", "fp16")
CPU_PRECISIONS = ("int4", "int8", "fp16")
UNTRIED = "this project has not been run on such a device yet"
_INTEGRATED_BELOW = 2**30
"""If DXCore does not report it, an adapter with less dedicated memory counts as integrated."""


def detect(machine: Machine) -> list[Offer | Refusal]:
    """Return offers and refusals for this machine, without importing ONNX Runtime into this process.

    Takes some tenths of a second on Windows, mostly for child processes.
    """
    found = flavours.installed()
    if machine.os != "windows" or found.flavour not in DIRECTX:
        return judge(machine, found, Reading(), cpu_name())
    # The DirectML flavour says by its name what it was built with; Windows ML's has to be asked.
    reported = runtime.read() if found.flavour == "winml" else Reported()
    return judge(machine, found, read(), cpu_name(), reported=reported)


def read() -> Reading:
    """Return all adapters, as reported by Windows."""
    from .adapters import windows

    return windows.read()


def confirm(device: Device) -> None:
    """Check that the index of a device still belongs to the same adapter.

    The order of adapters depends on the connected screens and may have changed since the survey.

    Raises:
        BackendError: the index belongs to another adapter or to none.
    """
    if sys.platform != "win32" or not device.id.isdigit():
        return
    from phi3_core.backend import system_library

    from .adapters import dxgi

    names = [adapter.name for adapter, _ in dxgi.adapters(system_library("dxgi.dll")) if not adapter.software]
    index = int(device.id)
    if index >= len(names) or names[index] != device.name:
        now = names[index] if index < len(names) else "no adapter"
        raise BackendError(f"{device} was {device.name} and is {now} now", hint="phi3 devices --refresh")


def judge(
    machine: Machine,
    found: Flavours,
    reading: Reading,
    cpu: str,
    *,
    reported: Reported | None = None,
    python: tuple[int, int] = refusals.PYTHON,
) -> list[Offer | Refusal]:
    """Return offers for usable devices and refusals for the others.

    Args:
        machine: this machine.
        found: the installed flavours of ONNX Runtime.
        reading: all adapters, as reported by Windows.
        cpu: the name of the processor.
        reported: what the installed ONNX Runtime GenAI reports, if it was asked.
        python: major and minor version of Python.
    """
    conflicts = [Refusal(reason=conflict.message, remedy=conflict.remedy) for conflict in found.conflicts()]
    if conflicts:
        return list(conflicts)
    answers: list[Offer | Refusal] = []
    if machine.os != "windows":
        answers.append(Refusal(reason="DirectX 12 is a Windows API, and this is not Windows"))
    elif found.flavour not in DIRECTX:
        answers.append(refusals.without_directml(machine, found, python))
    elif reported is not None and reported.failure:
        # Without the module there is no CPU provider either.
        return [refusals.not_importable(found, reported)]
    elif reported is not None and reported.directml is False:
        answers.append(Refusal(reason=f"{found.genai[0].name} {found.version} reports that it has no DirectML"))
    else:
        answers += directx(reading)
    if found.flavour is not None:
        answers.append(_cpu(machine, found, cpu))
    elif machine.os != "windows":
        answers.append(refusals.without_genai(machine, found))
    return answers


def directx(reading: Reading) -> Iterator[Offer | Refusal]:
    """Yield an offer or a refusal for every hardware adapter of a known vendor, or one refusal if there is none."""
    offered = refused = False
    for answer in _adapters(reading):
        offered, refused = offered or isinstance(answer, Offer), refused or isinstance(answer, Refusal)
        yield answer
    yield from _npus(reading)
    if not offered and not refused:
        yield refusals.nothing(reading)


def _adapters(reading: Reading) -> Iterator[Offer | Refusal]:
    blocking: Adapter | None = None
    # The index counts all adapters except software ones. GenAI creates a device on each adapter up to the chosen one.
    for index, adapter in enumerate(adapter for adapter in reading.adapters if not adapter.software):
        trial, known = reading.trial(adapter), adapter.vendor in VENDORS and not adapter.remote
        if blocking is not None:
            if known:
                yield refusals.behind(adapter, blocking)
        elif not trial.succeeded:
            blocking = adapter
            if known:
                yield refusals.refused(adapter, trial)
        elif known:
            yield _offer(index, adapter, trial, reading.details(adapter))


def _offer(index: int, adapter: Adapter, trial: Trial, core: Core | None) -> Offer:
    kind, guessed = _kind(adapter, core)
    own, shared = adapter.dedicated_bytes, adapter.shared_bytes
    notes = [UNTRIED]
    if guessed:
        notes.append("whether it is integrated is guessed from its memory, as Windows does not say")
    return Offer(
        device=Device(
            backend="dml",
            id=str(index),
            kind=kind,
            name=adapter.name,
            # An integrated GPU may use a part of the system memory.
            memory_bytes=(own if kind == "dgpu" else own + shared) or None,
            driver=(core.driver if core else "") or trial.driver or None,
        ),
        precisions=DML_PRECISIONS,
        maturity="experimental",
        notes="; ".join(notes),
        layout="dml",
    )


def _kind(adapter: Adapter, core: Core | None) -> tuple[str, bool]:
    """Return the kind of an adapter, and whether it is a guess."""
    if core is not None and is_npu(core):
        return "npu", False
    if core is not None and core.integrated is not None:
        return ("gpu" if core.integrated else "dgpu"), False
    if adapter.vendor in (QUALCOMM, NVIDIA):  # on Windows, Qualcomm's GPUs are integrated and NVIDIA's discrete
        return ("gpu" if adapter.vendor == QUALCOMM else "dgpu"), True
    return ("gpu" if adapter.dedicated_bytes < _INTEGRATED_BELOW else "dgpu"), True


def is_npu(core: Core) -> bool:
    """Return whether an adapter is an NPU: its driver reports it, or it is compute-only hardware."""
    return core.hardware and (core.npu or not core.graphics)


def _npus(reading: Reading) -> Iterator[Refusal]:
    """Yield refusals for NPUs that DXGI does not list and GenAI therefore cannot open."""
    listed = {adapter.luid for adapter in reading.adapters}
    for core in reading.core:
        if core.luid not in listed and is_npu(core):
            reason = f"{core.name or 'an NPU'}: ONNX Runtime GenAI opens graphics adapters only, and this is not one"
            if core.vendor == INTEL:
                yield Refusal(reason=f"{reason}; phi3-openvino drives it", remedy="pip install phi3-openvino")
            else:
                yield Refusal(reason=reason)


def _cpu(machine: Machine, found: Flavours, name: str) -> Offer:
    chosen = found.flavour == "cpu"
    notes = "ONNX Runtime on the CPU"
    if machine.os == "windows" and chosen:
        flavour = "Windows ML's" if machine.architecture == "arm64" else "the DirectML"
        notes += f"; for DirectX GPUs, install {flavour} flavour"
    elif machine.os != "windows":
        notes += "; for DirectX GPUs, install phi3-dml on Windows"
    return Offer(
        device=Device(
            backend="dml",
            id="CPU",
            kind="cpu",
            name=f"ONNX Runtime CPU: {name or machine.architecture}",
            memory_bytes=machine.memory_bytes,
        ),
        precisions=CPU_PRECISIONS,
        maturity="experimental",
        notes=notes,
        automatic=chosen,
    )


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor; empty if unknown."""
    # Not platform.processor(): on Windows it asks WMI, which may hang, and elsewhere it starts a process.
    if sys.platform == "win32":
        import winreg

        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
                return " ".join(str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).split())
        except OSError:
            return os.environ.get("PROCESSOR_IDENTIFIER", "")
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as stream:
            names = [line.partition(":")[2] for line in stream.read(4096).splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return " ".join(names[0].split()) if names else ""
