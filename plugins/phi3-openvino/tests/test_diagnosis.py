"""What ``phi3 doctor`` says of OpenVINO: versions that do not fit, drivers, and what the devices tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phi3_core.values import Machine
from phi3_openvino import detection, diagnosis

RECORDED = json.loads(Path(__file__).with_name("recorded_devices.json").read_text(encoding="utf-8"))
FITTING = {"openvino": "2026.4.1", "openvino-genai": "2026.4.1.0", "openvino-tokenizers": "2026.4.1.0"}
NOTHING: dict[str, detection.Obstacle | None] = {}
CPU = {"CPU": {"FULL_DEVICE_NAME": "A processor", "DEVICE_TYPE": "INTEGRATED"}}


def machine(system="linux"):
    return Machine(os=system, architecture="x86_64", memory_bytes=16 * 2**30)


def found(installed=FITTING, devices=CPU, hardware=NOTHING, failure="", system="linux"):
    return list(diagnosis.findings(machine(system), installed, devices, hardware, failure))


def errors(findings):
    return [finding for finding in findings if finding.severity == "error"]


def test_what_fits_is_information():
    findings = found()
    assert errors(findings) == []
    assert "openvino 2026.4.1" in findings[0].message
    assert any(finding.message == "CPU (A processor)" for finding in findings)


def test_releases_that_do_not_fit_are_named_with_what_mends_it():
    (error,) = errors(found({**FITTING, "openvino-genai": "2025.3.0.0"}))
    assert "openvino 2026.4.1" in error.message
    assert "openvino-genai 2025.3.0" in error.message
    assert error.remedy.startswith("pip install")


@pytest.mark.parametrize("name", FITTING)
def test_what_is_missing_is_named(name):
    (error,) = errors(found({other: version for other, version in FITTING.items() if other != name}))
    assert error.message == f"{name} is not installed"


def test_an_openvino_that_does_not_start_is_an_error_with_windows_usual_cause():
    (error,) = errors(found(devices={}, failure="ImportError: DLL load failed", system="windows"))
    assert "DLL load failed" in error.message
    assert "Visual C++" in error.remedy


def test_hardware_without_a_driver_is_an_error_and_missing_hardware_is_not():
    (error,) = errors(found(hardware={"gpu": None}))
    assert "GPU" in error.message
    assert "compute runtime" in error.remedy
    assert errors(found()) == []


def test_recorded_machines_have_a_line_for_each_device():
    for recorded in RECORDED.values():
        devices = recorded.get("devices", recorded)
        said = [finding.message for finding in found(devices=devices)]
        assert all(any(line.startswith(f"{name} (") for line in said) for name in devices)


def test_this_machine():
    findings = diagnosis.diagnose(machine())
    assert errors([finding for finding in findings if "installed" in finding.message]) == []
    assert any(finding.message.startswith("CPU (") for finding in findings)
