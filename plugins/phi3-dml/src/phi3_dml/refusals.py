"""Why adapters and flavours of ONNX Runtime cannot be used, and what changes that."""

from __future__ import annotations

import sys

from phi3_core.values import Machine, Refusal

from . import flavours
from .adapters.records import VENDORS, Adapter, Reading, Trial
from .flavours import Flavours
from .runtime import Reported

PYTHON = sys.version_info[:2]
FIRST_PYTHON, LAST_PYTHON = (3, 11), (3, 14)
"""The first version of CPython with wheels of ONNX Runtime GenAI, and the last with one of the DirectML flavour."""
_UNSUPPORTED = 0x887A0004  # DXGI_ERROR_UNSUPPORTED
_DRIVERS = {
    "AMD": "install the newest driver from https://www.amd.com/en/support",
    "Intel": "install the newest driver from https://www.intel.com/content/www/us/en/download-center/home.html",
    "NVIDIA": "install the newest driver from https://www.nvidia.com/en-us/drivers/",
    "Qualcomm": "install the newest driver through Windows Update",
}
CPP_RUNTIME_REMEDY = (
    "install the newest Visual C++ Redistributable (https://aka.ms/vc14/vc_redist.x64.exe, or .arm64.exe)"
)
_ANY_DRIVER = "install the newest driver of its maker"


def refused(adapter: Adapter, trial: Trial) -> Refusal:
    driver = _DRIVERS.get(VENDORS.get(adapter.vendor, ""), _ANY_DRIVER)
    version = f" {trial.driver}" if trial.driver else ""
    if trial.failure:
        return Refusal(
            reason=f"{adapter.name}: its driver{version} {trial.failure} when it was asked for Direct3D 12",
            remedy=driver,
        )
    if trial.code == _UNSUPPORTED:
        return Refusal(reason=f"{adapter.name} does not do Direct3D 12 (feature level 11.0)", remedy=driver)
    return Refusal(
        reason=f"{adapter.name}: its driver{version} refuses Direct3D 12 (0x{trial.code or 0:08X})", remedy=driver
    )


def behind(adapter: Adapter, blocking: Adapter) -> Refusal:
    update = _DRIVERS.get(VENDORS.get(blocking.vendor, ""), _ANY_DRIVER)
    return Refusal(
        reason=f"{adapter.name}: ONNX Runtime GenAI does not get past {blocking.name}, which comes before it and fails",
        remedy=f"for {blocking.name}, {update}, or disable it in the Device Manager (devmgmt.msc)",
    )


def nothing(reading: Reading) -> Refusal:
    if reading.failures:
        return Refusal(
            reason=f"Windows did not list its graphics adapters: {'; '.join(reading.failures)}",
            remedy="update Windows (DirectML needs Windows 10 version 1903 or later) and the graphics driver",
        )
    if reading.remote_session or any(adapter.remote and not adapter.software for adapter in reading.adapters):
        return Refusal(
            reason="Windows shows no graphics adapter of its own in this remote session",
            remedy="sign in at the computer itself, or allow the policy 'Use hardware graphics adapters for all Remote "
            "Desktop Services sessions'",
        )
    return Refusal(
        reason="Windows has no graphics adapter with a driver for Direct3D 12",
        remedy="if there is a GPU, " + _ANY_DRIVER,
    )


def not_importable(found: Flavours, reported: Reported) -> Refusal:
    return Refusal(
        reason=f"{found.genai[0].name} {found.version} cannot be imported: {reported.failure}",
        remedy=CPP_RUNTIME_REMEDY,
    )


def without_genai(machine: Machine, found: Flavours, python: tuple[int, int] = PYTHON) -> Refusal:
    """Return the refusal of a machine on which ONNX Runtime GenAI is not installed, or not alone."""
    if machine.os == "windows":
        return without_directml(machine, found, python)
    return Refusal(reason="ONNX Runtime GenAI is not installed", remedy='pip install "phi3-dml[cpu]"')


def without_directml(machine: Machine, found: Flavours, python: tuple[int, int]) -> Refusal:
    version = ".".join(map(str, python))
    install = ""
    if python >= FIRST_PYTHON and machine.architecture == "x86_64" and python <= LAST_PYTHON:
        install = f"pip install {flavours.DIRECTML}"
    elif python >= FIRST_PYTHON and machine.architecture in {"x86_64", "arm64"}:
        install = flavours.INSTALL_WINML
    if not install:
        return Refusal(
            reason=f"ONNX Runtime GenAI with DirectML is not published for Python {version} on {machine.architecture}",
            remedy="install Python 3.11 to 3.14 (64-bit)",
        )
    present = " ".join(one.name for one in (*found.genai, *found.runtimes))
    if not present:
        return Refusal(reason="ONNX Runtime GenAI is not installed", remedy=install)
    if found.flavour is None:
        reason = "ONNX Runtime GenAI is not installed"
    else:
        reason = f"the installed ONNX Runtime GenAI ({found.flavour}) cannot use DirectX GPUs"
    return Refusal(reason=reason, remedy=f"pip uninstall -y {present}, then {install}")
