"""Diagnosis of NPU problems: device, driver, versions and permissions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from phi3_core.backend import installed_versions
from phi3_core.values import Finding, Machine, Offer, Refusal

from . import detection, requirements
from .hardware.records import GENERATIONS, INTEL, Npu, System

PACKAGES = ("intel-npu-acceleration-library", "torch", "transformers", "openvino")


def diagnose(machine: Machine) -> list[Finding]:
    """Return findings about this machine, without importing the library."""
    return list(findings(machine, requirements.missing(machine), detection.read(machine), installed_versions(PACKAGES)))


def findings(
    machine: Machine, obstacle: Refusal | None, system: System, installed: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield findings about the given state.

    Args:
        machine: this machine.
        obstacle: why the library cannot be used on any hardware, or None.
        system: the system and its NPUs.
        installed: installed versions of :data:`PACKAGES` by name.
    """
    if obstacle is not None:
        yield Finding(severity="error", message=obstacle.reason, remedy=obstacle.remedy)
    if machine.os == "windows" and {"openvino", PACKAGES[0]} <= set(installed):
        yield Finding(
            severity="info",
            message="the library brings an OpenVINO of its own, 2024.4; beside the other one it is never loaded into "
            "the same process",
        )
    for npu in system.npus:
        yield from _npu(machine, npu, system)
    if any(npu.vendor == INTEL for npu in system.npus):
        yield _loader(system)
    # The offer for the CPU is of no interest here; refusals of single devices were yielded above.
    for answer in detection.judge(machine, system):
        if isinstance(answer, Refusal) and not system.npus:
            yield Finding(severity="info", message=answer.reason, remedy=answer.remedy)
        elif isinstance(answer, Offer) and answer.device.kind == "npu":
            yield Finding(severity="info", message=f"{answer.device}: {answer.notes}")


def _npu(machine: Machine, npu: Npu, system: System) -> Iterator[Finding]:
    if npu.vendor == INTEL:
        facts = [f"driver {npu.driver or 'none'} (at least {_least(machine, npu)})"]
        if machine.os == "linux":
            access = "may be read and written" if npu.accessible else "may not be read and written"
            facts.append(f"kernel driver {npu.kernel_driver or 'none'}")
            facts.append(f"{npu.node} {access}" if npu.node else "no device file")
        else:
            facts.append(f"problem code {npu.problem}" if npu.problem else "working properly")
        yield Finding(severity="info", message=f"{detection.describe(npu)} at {npu.place}: {', '.join(facts)}")
    refusal = detection.refuse(machine.os, npu, system)
    if refusal is not None:
        severity = "error" if npu.vendor == INTEL else "info"
        yield Finding(severity=severity, message=refusal.reason, remedy=refusal.remedy)


def _least(machine: Machine, npu: Npu) -> str:
    if machine.os == "windows":
        return ".".join(map(str, detection.LEAST_WINDOWS_DRIVER))
    generation = GENERATIONS.get(npu.device)
    return ".".join(map(str, generation.linux_driver)) if generation and any(generation.linux_driver) else "not known"


def _loader(system: System) -> Finding:
    if system.loader:
        return Finding(severity="info", message=f"Level Zero loader: {system.loader}")
    return Finding(severity="warning", message="no Level Zero loader (libze_loader.so.1, on Windows ze_loader.dll)")
