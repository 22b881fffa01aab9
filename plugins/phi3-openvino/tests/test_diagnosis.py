"""What ``phi3 doctor`` says of OpenVINO: versions that do not fit, drivers, and what the devices tell."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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


def is_remedy(text):
    """Whether each step of a remedy is a command, or a sentence without any."""
    command = re.compile(r"(pip|phi3|sudo|docker) \S")
    steps = text.split(", then ")
    return all(
        not command.search(step) or (command.match(step) and re.fullmatch(r"[-\w .=/\"\[\]$]+", step)) for step in steps
    )


def errors(findings):
    return [finding for finding in findings if finding.severity == "error"]


def test_what_fits_is_information():
    findings = found()
    assert errors(findings) == []
    assert not any("2026.4.1" in finding.message for finding in findings)  # the doctor groups all versions
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


@pytest.mark.parametrize("system", ["linux", "windows"])
def test_an_openvino_that_does_not_start_is_an_error_with_a_command(system):
    (error,) = errors(found(devices={}, failure="ImportError: DLL load failed", system=system))
    assert "DLL load failed" in error.message
    assert error.remedy == "pip install --upgrade openvino openvino-genai"


@pytest.mark.parametrize("system", ["linux", "windows"])
def test_a_remedy_is_a_command_or_a_sentence_without_one(system):
    obstacle = detection.Obstacle(reason="x", remedy="y")
    states: list[dict[str, Any]] = [
        {"devices": {}},
        {"installed": {}},
        {"installed": {**FITTING, "openvino-genai": "2025.3.0.0"}},
        {"devices": {}, "failure": "ImportError: no"},
        {"hardware": {"gpu": None, "npu": obstacle}},
        *({"devices": recorded.get("devices", recorded)} for recorded in RECORDED.values()),
    ]
    for state in states:
        for finding in found(**state, system=system):
            assert is_remedy(finding.remedy), finding.remedy


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
