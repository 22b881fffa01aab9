"""Detection of the devices that OpenVINO supports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from phi3_core.backend import missing_requirement
from phi3_core.values import Device, Machine, Offer, Refusal

from . import npu

PROPERTIES = (
    "FULL_DEVICE_NAME",
    "DEVICE_TYPE",
    "GPU_DEVICE_TOTAL_MEM_SIZE",
    "NPU_DEVICE_TOTAL_MEM_SIZE",
    "NPU_DRIVER_VERSION",
    "NPU_COMPILER_VERSION",
)
UNTRIED = "this project has not been run on such a device yet"
ON_CPU = "for trying and testing the NPU pipeline without an NPU"
_INTEL = "0x8086"
# Where Linux describes a kind of device, and the folder and names of what is opened.
_NODES = {
    "gpu": ("drm/card*/device/vendor", "dri", "renderD*"),
    "npu": ("accel/accel*/device/vendor", "accel", "accel*"),
}
_GPU_DRIVER = {
    "linux": "install Intel's compute runtime (on Debian: intel-opencl-icd) and join the group render",
    "windows": "install the newest Intel graphics driver",
}
_NPU_DRIVER = {
    "linux": "install Intel's linux-npu-driver (with libze_loader) and join the group render",
    "windows": "install the newest Intel NPU driver",
}


@frozen(kw_only=True)
class Obstacle:
    """What keeps a process from opening a device that the system has."""

    reason: str
    remedy: str


def detect(machine: Machine) -> list[Offer | Refusal]:
    """Return offers and refusals for this machine. Takes about half a second, mostly for importing OpenVINO."""
    refusal = missing_requirement("openvino-genai", module="openvino_genai")
    if refusal is not None:
        return [refusal]
    import openvino

    core = openvino.Core()
    devices = read(core)
    answers = judge(machine, devices, intel_hardware())
    if has_npu_plugin(core):
        answers.append(offer_npu_on_cpu(machine, devices))
    return answers


def read(core: Any) -> dict[str, dict[str, str]]:
    """Return the available properties of every device as text, by device name.

    Args:
        core: an ``openvino.Core``.
    """
    devices: dict[str, dict[str, str]] = {}
    for name in core.available_devices:
        devices[name] = {}
        for key in PROPERTIES:
            # OpenVINO raises for unsupported properties, and for all properties of an NPU without a driver.
            with contextlib.suppress(RuntimeError):
                value = core.get_property(name, key)
                devices[name][key] = str(getattr(value, "name", value))
    return devices


def has_npu_plugin(core: Any) -> bool:
    """Return whether OpenVINO's NPU plugin is installed, as it is on x86-64.

    Args:
        core: an ``openvino.Core``.
    """
    try:
        return bool(core.get_versions(npu.DEVICE))
    except RuntimeError:
        return False


def intel_hardware(root: Path = Path("/sys/class"), devices: Path = Path("/dev")) -> Mapping[str, Obstacle | None]:
    """Return the Intel devices that Linux reports, usable or not, and what keeps this process from opening them.

    Args:
        root: where Linux describes devices.
        devices: where they are opened.

    Returns:
        The obstacle, if any, by kind: ``gpu``, ``npu``. Empty on other systems.
    """
    found: dict[str, Obstacle | None] = {}
    for kind, (pattern, folder, nodes) in _NODES.items():
        for file in root.glob(pattern):
            with contextlib.suppress(OSError):
                if file.read_text(encoding="ascii").strip() == _INTEL:
                    found[kind] = _obstacle(devices / folder, nodes)
    return found


def _obstacle(folder: Path, pattern: str) -> Obstacle | None:
    nodes = sorted(folder.glob(pattern))
    if not nodes:
        return Obstacle(reason=f"{folder} is not", remedy=f"start the container with --device {folder}, if this is one")
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return Obstacle(reason=f"this user may not open {nodes[0]}", remedy=_permit(nodes[0]))
    return None


def _permit(node: Path) -> str:
    """Return what lets the user open a device file."""
    with contextlib.suppress(KeyError, OSError, NotImplementedError):  # no such group, as in containers, or no groups
        if (group := node.group()) in ("render", "video"):
            return f"sudo usermod -aG {group} $USER, then log out and in again"
    return "join the group that owns it, and log in again"


def judge(
    machine: Machine, devices: Mapping[str, Mapping[str, str]], hardware: Mapping[str, Obstacle | None]
) -> list[Offer | Refusal]:
    """Return offers for OpenVINO's devices, and refusals for missing or unusable ones.

    Args:
        machine: this machine.
        devices: properties of the devices, as returned by :func:`read`.
        hardware: the devices that are present, as returned by :func:`intel_hardware`.
    """
    answers: list[Offer | Refusal] = []
    for name, properties in devices.items():
        family = name.partition(".")[0]
        if family == "CPU":
            answers.append(_offer(name, "cpu", properties, machine.memory_bytes))
        elif family == "GPU":
            kind = "dgpu" if properties.get("DEVICE_TYPE", "").upper() == "DISCRETE" else "gpu"
            # OpenVINO names a single GPU "GPU"; its other name GPU.0 stays valid when a second one is added.
            number = name if "." in name else "GPU.0"
            answers.append(_offer(number, kind, properties, _bytes(properties, "GPU_DEVICE_TOTAL_MEM_SIZE")))
        elif family == "NPU":
            if "NPU_DRIVER_VERSION" in properties:
                answers.append(_offer("NPU", "npu", properties, _bytes(properties, "NPU_DEVICE_TOTAL_MEM_SIZE")))
            else:
                answers.append(
                    Refusal(reason="the NPU does not tell its driver", remedy=_NPU_DRIVER.get(machine.os, ""))
                )
    families = {name.partition(".")[0] for name in devices}
    if "GPU" not in families:
        answers.append(_missing("GPU", hardware, _GPU_DRIVER.get(machine.os, "")))
    if "NPU" not in families:
        answers.append(_missing("NPU", hardware, _NPU_DRIVER.get(machine.os, "")))
    return answers


def offer_npu_on_cpu(machine: Machine, devices: Mapping[str, Mapping[str, str]]) -> Offer:
    """Return the offer of the NPU pipeline on the CPU, which is used only when named.

    Args:
        machine: this machine.
        devices: properties of the devices, as returned by :func:`read`.
    """
    return Offer(
        device=Device(
            backend="openvino",
            id=npu.NPU_CPU,
            kind="cpu",
            name=f"{_name('CPU', devices.get('CPU', {}))} (OpenVINO's NPU pipeline)",
            memory_bytes=machine.memory_bytes,
        ),
        # As on the NPU, and the precision at which its ids can be held against the CPU's.
        precisions=("int4", "fp16"),
        notes=ON_CPU,
        automatic=False,
        layout="npu",
    )


def describe_npu_driver(properties: Mapping[str, str]) -> str | None:
    """Return the versions of an NPU's driver and compiler, on which compiled models depend; None if both are unknown.

    Args:
        properties: properties of the NPU, as returned by :func:`read`.
    """
    driver, compiler = properties.get("NPU_DRIVER_VERSION"), properties.get("NPU_COMPILER_VERSION", "")
    if compiler.isdecimal():  # as in Level Zero, the upper 16 bits are the major version
        compiler = f"{int(compiler) >> 16}.{int(compiler) & 0xFFFF}"
    return ", ".join(filter(None, [driver, f"compiler {compiler}" if compiler else ""])) or None


def _name(device: str, properties: Mapping[str, str]) -> str:
    return " ".join(properties.get("FULL_DEVICE_NAME", device).split()) or device


def _offer(name: str, kind: str, properties: Mapping[str, str], memory_bytes: int | None) -> Offer:
    device = Device(
        backend="openvino",
        id=name,
        kind=kind,
        name=_name(name, properties),
        memory_bytes=memory_bytes,
        driver=describe_npu_driver(properties),
    )
    # The NPU's compiler supports symmetric int4 weights, per channel or in groups of 128.
    precisions: Sequence[str] = ("int4",) if kind == "npu" else ("int4", "int8", "fp16")
    layout = "npu" if kind == "npu" else ""
    return Offer(device=device, precisions=precisions, notes="" if kind == "cpu" else UNTRIED, layout=layout)


def _bytes(properties: Mapping[str, str], key: str) -> int | None:
    text = properties.get(key, "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def _missing(family: str, hardware: Mapping[str, Obstacle | None], remedy: str) -> Refusal:
    if family.lower() in hardware:
        if obstacle := hardware[family.lower()]:
            return Refusal(reason=f"an Intel {family} is here, but {obstacle.reason}", remedy=obstacle.remedy)
        return Refusal(reason=f"an Intel {family} is here, but OpenVINO cannot use it", remedy=remedy)
    return Refusal(reason=f"OpenVINO finds no Intel {family}", remedy=f"if there is one, {remedy}" if remedy else "")
