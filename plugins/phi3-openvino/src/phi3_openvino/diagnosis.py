"""Diagnosis of OpenVINO problems: versions, drivers and devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phi3_core.backend import installed_versions
from phi3_core.values import Finding, Machine, Offer, Refusal

from . import detection

PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers")
_INSTALL = "pip install --upgrade openvino openvino-genai"


def diagnose(machine: Machine) -> list[Finding]:
    """Return findings about installed versions and OpenVINO's devices. Takes about half a second."""
    installed = installed_versions(PACKAGES)
    devices: Mapping[str, Mapping[str, str]] = {}
    failure = ""
    try:
        import openvino

        devices = detection.read(openvino.Core())
    except (ImportError, OSError, RuntimeError) as error:
        failure = f"{type(error).__name__}: {error}"
    return list(findings(machine, installed, devices, detection.intel_hardware(), failure))


def findings(
    machine: Machine,
    installed: Mapping[str, str],
    devices: Mapping[str, Mapping[str, str]],
    hardware: Mapping[str, detection.Obstacle | None],
    failure: str = "",
) -> Iterator[Finding]:
    """Yield findings about the given state.

    Args:
        machine: this machine.
        installed: installed versions of :data:`PACKAGES` by name.
        devices: properties of the devices, as returned by :func:`detection.read`.
        hardware: the devices that are present, as returned by :func:`detection.intel_hardware`.
        failure: why OpenVINO's devices could not be read; empty if they could.
    """
    for name in PACKAGES:
        if name not in installed:
            yield Finding(severity="error", message=f"{name} is not installed", remedy=_INSTALL)
    releases = {name: _release(version) for name, version in installed.items()}
    if len(set(releases.values())) > 1:
        words = ", ".join(f"{name} {release}" for name, release in releases.items())
        yield Finding(
            severity="error", message=f"releases of OpenVINO that do not fit each other: {words}", remedy=_INSTALL
        )
    if failure:
        yield Finding(severity="error", message=f"OpenVINO does not start: {failure}", remedy=_INSTALL)
        return
    for name, properties in devices.items():
        driver, memory = detection.describe_npu_driver(properties), "GPU_DEVICE_TOTAL_MEM_SIZE"
        facts = [f"driver {driver}"] if driver else []
        facts += [f"{memory} {properties[memory]}"] if memory in properties else []
        title = " ".join(properties.get("FULL_DEVICE_NAME", name).split())
        yield Finding(severity="info", message=": ".join([f"{name} ({title})", *filter(None, [", ".join(facts)])]))
    for answer in detection.judge(machine, devices, hardware):
        if isinstance(answer, Refusal):
            severity = "error" if "cannot use it" in answer.reason or "driver" in answer.reason else "info"
            yield Finding(severity=severity, message=answer.reason, remedy=answer.remedy)
        elif isinstance(answer, Offer) and answer.notes:
            yield Finding(severity="info", message=f"{answer.device}: {answer.notes}")


def _release(version: str) -> str:
    """Return the part of a version that the packages of a release share: ``2026.4.1`` of ``2026.4.1.0``."""
    return ".".join(version.split("-", maxsplit=1)[0].split(".")[:3])
