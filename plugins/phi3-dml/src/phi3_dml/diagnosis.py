"""Diagnosis of DirectML problems: versions, drivers and known defects."""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen
from phi3_core.values import Finding, Machine, Offer

from . import catalogue, detection, flavours, refusals, runtime
from .adapters.records import NVIDIA, VENDORS, Adapter, Reading
from .flavours import Flavours
from .runtime import Reported

LEAST_BUILD = 18362
"""Build of Windows 10 version 1903, the first with DirectML."""
SIGNATURE = struct.pack("<I", 0xFEEF04BD)
"""The first bytes of ``VS_FIXEDFILEINFO``, a resource with the version of a Windows library."""
VERSION_OFFSET = 8


@frozen(kw_only=True)
class Report:
    """A known defect, as reported by users."""

    concerns: Callable[[Adapter, Offer], bool]
    """Returns whether the defect affects an adapter."""
    message: str
    remedy: str


def _vendor(adapter: Adapter) -> str:
    return VENDORS.get(adapter.vendor, "")


def nvidia_release(driver: str) -> float:
    """Return NVIDIA's release number of a Windows driver version: 560.94 for 32.0.15.6094; 0 if there is none."""
    digits = driver.replace(".", "")[-5:]
    return int(digits) / 100 if len(digits) == 5 and digits.isdigit() else 0.0


# Open issues of onnxruntime-genai, and NVIDIA's announcement of release 555.
REPORTS = (
    Report(
        concerns=lambda adapter, offer: _vendor(adapter) == "Intel" and offer.device.kind == "gpu",
        message="on Intel's integrated GPUs, prompts of more than some hundred tokens have ended in a lost device "
        "(onnxruntime-genai #570); if that happens, phi3-openvino drives the same GPU",
        remedy="pip install phi3-openvino",
    ),
    Report(
        concerns=lambda adapter, offer: _vendor(adapter) == "AMD" and offer.device.kind == "gpu",
        message="on AMD's integrated GPUs, answers have turned into noise after some hundred tokens "
        "(onnxruntime-genai #667); if that happens, choose another device",
        remedy="phi3 devices",
    ),
    Report(
        concerns=lambda adapter, _: adapter.vendor == NVIDIA and 0x1B00 <= adapter.device <= 0x1DFF,
        message="on NVIDIA's Pascal GPUs, some prompts have ended in a lost device (onnxruntime-genai #833, #975); if "
        "that happens, choose another device",
        remedy="phi3 devices",
    ),
    Report(
        concerns=lambda adapter, offer: adapter.vendor == NVIDIA and nvidia_release(offer.device.driver or "") < 555,
        message="drivers before NVIDIA's release 555 have no fast int4 matrix product for DirectML",
        remedy="install the newest driver from https://www.nvidia.com/en-us/drivers/",
    ),
)


def diagnose(machine: Machine) -> list[Finding]:
    """Return findings about this machine, without importing ONNX Runtime into this process."""
    found = flavours.installed()
    reading = detection.read() if machine.os == "windows" else Reading()
    reported = runtime.read(catalogue=found.flavour == "winml") if found.flavour is not None else Reported()
    return list(findings(machine, found, reading, directml_version(), reported))


def findings(
    machine: Machine, found: Flavours, reading: Reading, directml: str | None, reported: Reported
) -> Iterator[Finding]:
    """Yield findings about the given state.

    Args:
        machine: this machine.
        found: the installed flavours of ONNX Runtime.
        reading: all adapters, as reported by Windows.
        directml: the version of the installed DirectML, or None.
        reported: what the installed ONNX Runtime GenAI reports.
    """
    yield from _flavours(machine, found)
    yield from _reported(found, reported)
    if machine.os != "windows":
        yield Finding(severity="info", message="DirectX 12 is a Windows API: here ONNX Runtime runs on the CPU only")
        return
    yield _windows(reading)
    if found.flavour in detection.DIRECTX:
        yield _directml(found, directml)
    yield from (Finding(severity="warning", message=f"could not be read: {failure}") for failure in reading.failures)
    yield from _adapters(reading)


def _flavours(machine: Machine, found: Flavours) -> Iterator[Finding]:
    for conflict in found.conflicts():
        yield Finding(severity="error", message=conflict.message, remedy=conflict.remedy)
    if not found.genai:
        refusal = refusals.without_genai(machine, found)
        yield Finding(severity="error", message=refusal.reason, remedy=refusal.remedy)


def _reported(found: Flavours, reported: Reported) -> Iterator[Finding]:
    if reported.failure:
        message = f"ONNX Runtime GenAI cannot be imported: {reported.failure}"
        yield Finding(severity="error", message=message, remedy=refusals.CPP_RUNTIME_REMEDY)
    elif reported.package:
        built = "with" if reported.directml else "without"
        yield Finding(severity="info", message=f"{reported.package} is built {built} DirectML")
    if found.flavour is not None and reported.package not in {"", found.genai[0].name}:
        yield Finding(
            severity="error",
            message=f"the files of {found.genai[0].name} are those of {reported.package}",
            remedy=f"pip install --force-reinstall --no-deps {found.genai[0].name}=={found.genai[0].version}",
        )
    if reported.catalogue:
        yield Finding(
            severity="info",
            message=f"execution providers of Windows ML: {catalogue.listed(reported.catalogue)}; none is used unless "
            f"--option {catalogue.PROVIDER_OPTION}=NAME asks for it",
        )
    if reported.catalogue_failure:
        yield Finding(
            severity="info",
            message=f"Windows ML's catalogue of execution providers cannot be read: {reported.catalogue_failure}",
        )


def _windows(reading: Reading) -> Finding:
    if 0 < reading.build < LEAST_BUILD:
        return Finding(
            severity="error",
            message=f"Windows build {reading.build} has no DirectML",
            remedy=f"update to Windows 10 version 1903 (build {LEAST_BUILD}) or later",
        )
    session = ", in a remote session" if reading.remote_session else ""
    return Finding(severity="info", message=f"Windows build {reading.build}{session}")


def _directml(found: Flavours, version: str | None) -> Finding:
    if version is None:
        runtime = found.runtimes[0]
        return Finding(
            severity="error",
            message=f"DirectML.dll is missing from the installed {runtime.name}",
            remedy=f"pip install --force-reinstall --no-deps {runtime.name}=={runtime.version}",
        )
    return Finding(severity="info", message=f"DirectML {version}")


def _adapters(reading: Reading) -> Iterator[Finding]:
    adapters = [adapter for adapter in reading.adapters if not adapter.software]
    for answer in detection.directx(reading):
        if not isinstance(answer, Offer):
            yield Finding(severity="warning", message=answer.reason, remedy=answer.remedy)
            continue
        device, adapter = answer.device, adapters[int(answer.device.id)]
        release = nvidia_release(device.driver or "") if adapter.vendor == NVIDIA else 0
        also = f" (NVIDIA's {release:.2f})" if release else ""
        driver = f"driver {device.driver}{also}" if device.driver else "driver unknown"
        yield Finding(severity="info", message=f"{device}: {device.name}, {driver}")
        for report in REPORTS:
            if report.concerns(adapter, answer):
                yield Finding(severity="warning", message=f"{device}: {report.message}", remedy=report.remedy)


def directml_version(package: Path | None = None) -> str | None:
    """Return the version of onnxruntime's DirectML.dll, or None if there is none.

    Args:
        package: the folder of the package; by default that of the installed one.
    """
    if package is None:
        spec = importlib.util.find_spec("onnxruntime")
        if spec is None or not spec.submodule_search_locations:
            return None
        package = Path(spec.submodule_search_locations[0])
    return file_version(package / "capi" / "DirectML.dll")


def file_version(file: Path) -> str | None:
    """Return the version of a Windows library from its resource ``VS_FIXEDFILEINFO`` (``verrsrc.h``), or None."""
    # OSError if the file is missing, ValueError if it is empty.
    with (
        contextlib.suppress(OSError, ValueError),
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.rfind(SIGNATURE)
        if start < 0 or start + VERSION_OFFSET + 8 > len(content):
            return None
        high, low = struct.unpack_from("<II", content, start + VERSION_OFFSET)
        return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"
    return None
