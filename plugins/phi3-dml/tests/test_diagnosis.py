"""What ``phi3 doctor`` is told about DirectML, from the recordings of detection and from files made here."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from phi3_core.machine import this_machine
from phi3_core.values import Machine
from phi3_dml import diagnosis
from phi3_dml.adapters.records import Reading
from phi3_dml.flavours import Flavours, Installed

RECORDED = json.loads(Path(__file__).with_name("recordings").joinpath("windows.json").read_text(encoding="utf-8"))
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=2**35)
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=2**35)
GENAI = Installed(name="onnxruntime-genai-directml", version="0.13.1")
RUNTIME = Installed(name="onnxruntime-directml", version="1.24.4")
DIRECTML = Flavours(genai=(GENAI,), runtimes=(RUNTIME,))


def reading(name, **changes):
    return Reading(**{**{key: value for key, value in RECORDED[name].items() if key != "about"}, **changes})


def found(name, machine=WINDOWS, installed=DIRECTML, directml="1.15.4.0", **changes):
    findings = list(diagnosis.findings(machine, installed, reading(name, **changes), directml))
    return {
        severity: [one for one in findings if one.severity == severity] for severity in ("info", "warning", "error")
    }


def test_versions_and_drivers():
    told = found("one gpu")
    assert [one.message for one in told["info"]] == [
        "installed: onnxruntime-genai-directml 0.13.1, onnxruntime-directml 1.24.4",
        "Windows build 22631",
        "DirectML 1.15.4.0",
        "dml:0: NVIDIA GeForce RTX 4070, driver 32.0.15.6094 (NVIDIA's 560.94)",
    ]
    assert told["warning"] == told["error"] == []


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [
        ("integrated gpu and npu", "dml:0", "Intel's integrated GPUs"),
        ("amd apu", "dml:0", "AMD's integrated GPUs"),
        ("two gpus of different vendors", "dml:1", "before NVIDIA's release 555"),
    ],
)
def test_defects_on_record_are_told_of_the_devices_they_concern(name, device, message):
    (told,) = [one for one in found(name)["warning"] if "dml:" in one.message]
    assert told.message.startswith(f"{device}: ")
    assert message in told.message
    assert told.remedy


def test_pascal():
    adapters = [{**RECORDED["one gpu"]["adapters"][0], "name": "Quadro P5000", "device": 0x1BB0}]
    (told,) = found("one gpu", adapters=adapters)["warning"]
    assert "Pascal" in told.message


def test_what_detection_refuses_is_told_too():
    told = found("a driver that crashes")
    (refused,) = told["warning"]
    assert "crashed (0xC0000005)" in refused.message
    assert "amd.com" in refused.remedy


def test_a_windows_without_directml_is_an_error():
    (error,) = found("nothing can be read")["error"]
    assert error.message == "Windows build 17134 has no DirectML"
    assert "1903" in error.remedy


def test_a_remote_session_is_told():
    assert "Windows build 22631, in a remote session" in [one.message for one in found("remote session")["info"]]


def test_a_missing_directml_is_an_error():
    (error,) = found("one gpu", directml=None)["error"]
    assert "DirectML.dll is missing" in error.message


def test_flavours_in_conflict_are_an_error():
    both = Flavours(genai=(Installed(name="onnxruntime-genai", version="0.18.0"), GENAI), runtimes=(RUNTIME,))
    (error,) = found("one gpu", installed=both)["error"]
    assert "pip uninstall" in error.remedy


def test_elsewhere_there_is_no_directx():
    cpu = Flavours(
        genai=(Installed(name="onnxruntime-genai", version="0.18.0"),),
        runtimes=(Installed(name="onnxruntime", version="1.24.4"),),
    )
    told = list(diagnosis.findings(LINUX, cpu, Reading(), None))
    assert [one.severity for one in told] == ["info", "info"]
    assert "Windows API" in told[-1].message


def test_nothing_installed_is_an_error():
    (error,) = [
        one for one in diagnosis.findings(LINUX, Flavours(genai=(), runtimes=()), Reading(), None) if one.remedy
    ]
    assert (error.severity, error.message) == ("error", "ONNX Runtime GenAI is not installed")


@pytest.mark.parametrize(
    ("driver", "release"),
    [("32.0.15.6094", 560.94), ("31.0.15.5244", 552.44), ("27.21.14.5671", 456.71), ("", 0), ("1.2", 0)],
)
def test_nvidia_counts_its_drivers_itself(driver, release):
    assert diagnosis.nvidia_release(driver) == release


def test_the_version_of_a_library_is_read_from_its_file(tmp_path):
    library = tmp_path / "capi" / "DirectML.dll"
    library.parent.mkdir()
    assert diagnosis.directml_version(tmp_path) is None
    library.write_bytes(b"")
    assert diagnosis.directml_version(tmp_path) is None
    library.write_bytes(b"MZ" + bytes(100))
    assert diagnosis.directml_version(tmp_path) is None
    library.write_bytes(b"MZ" + bytes(100) + diagnosis.SIGNATURE)
    assert diagnosis.directml_version(tmp_path) is None
    block = struct.pack("<IIIIII", 0xFEEF04BD, 0x00010000, 1 << 16 | 15, 4 << 16, 1 << 16 | 15, 4 << 16)
    library.write_bytes(b"MZ" + bytes(100) + block + bytes(100))
    assert diagnosis.directml_version(tmp_path) == "1.15.4.0"


def test_this_machine():
    assert diagnosis.diagnose(this_machine())
