"""What ``phi3 doctor`` is told about DirectML, from the recordings of detection and from files made here."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from phi3_core.machine import this_machine
from phi3_core.values import Machine
from phi3_dml import diagnosis
from phi3_dml.adapters.records import Reading
from phi3_dml.flavours import Flavours, Installed
from phi3_dml.runtime import Reported

RECORDED = json.loads(Path(__file__).with_name("recordings").joinpath("windows.json").read_text(encoding="utf-8"))
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=2**35)
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=2**35)
GENAI = Installed(name="onnxruntime-genai-directml", version="0.13.1")
RUNTIME = Installed(name="onnxruntime-directml", version="1.24.4")
DIRECTML = Flavours(genai=(GENAI,), runtimes=(RUNTIME,))
REPORTED = Reported(package=GENAI.name, version=GENAI.version, directml=True)
WINML = Flavours(
    genai=(Installed(name="onnxruntime-genai-winml", version="0.18.0"),),
    runtimes=(Installed(name="onnxruntime-windowsml", version="1.27.1.202607110137"),),
)


def reading(name, **changes):
    return Reading(**{**{key: value for key, value in RECORDED[name].items() if key != "about"}, **changes})


def found(name, machine=WINDOWS, installed=DIRECTML, directml="1.15.4.0", reported=REPORTED, **changes):
    findings = list(diagnosis.findings(machine, installed, reading(name, **changes), directml, reported))
    return {
        severity: [one for one in findings if one.severity == severity] for severity in ("info", "warning", "error")
    }


def test_versions_and_drivers():
    told = found("one gpu")
    assert [one.message for one in told["info"]] == [
        "onnxruntime-genai-directml is built with DirectML",
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


@pytest.mark.parametrize(
    ("installed", "runtime"),
    [(DIRECTML, "onnxruntime-directml==1.24.4"), (WINML, "onnxruntime-windowsml==1.27.1.202607110137")],
)
def test_a_missing_directml_is_an_error(installed, runtime):
    (error,) = found("one gpu", installed=installed, reported=Reported(), directml=None)["error"]
    assert error.message == f"DirectML.dll is missing from the installed {runtime.partition('==')[0]}"
    assert error.remedy == f"pip install --force-reinstall --no-deps {runtime}"


def test_flavours_in_conflict_are_an_error():
    both = Flavours(genai=(Installed(name="onnxruntime-genai", version="0.18.0"), GENAI), runtimes=(RUNTIME,))
    (error,) = found("one gpu", installed=both)["error"]
    assert "pip uninstall" in error.remedy


def test_a_module_of_another_flavour_than_the_installed_one_is_an_error():
    """What is left after one of two flavours was removed, or after a copy by hand."""
    (error,) = found("one gpu", reported=Reported(package="onnxruntime-genai", version="0.18.0", directml=False))[
        "error"
    ]
    assert error.message == "the files of onnxruntime-genai-directml are those of onnxruntime-genai"
    assert error.remedy == "pip install --force-reinstall --no-deps onnxruntime-genai-directml==0.13.1"


def test_a_module_that_cannot_be_imported_is_an_error():
    (error,) = found("one gpu", reported=Reported(failure="ImportError: DLL load failed"))["error"]
    assert error.message == "ONNX Runtime GenAI cannot be imported: ImportError: DLL load failed"


def test_windows_mls_catalogue_is_told():
    reported = Reported(
        package="onnxruntime-genai-winml",
        version="0.18.0",
        directml=True,
        catalogue=[{"name": "QNNExecutionProvider", "version": "2.2451.48.0"}],
    )
    told = [one.message for one in found("snapdragon", installed=WINML, reported=reported)["info"]]
    assert (
        "execution providers of Windows ML: QNNExecutionProvider 2.2451.48.0 (not downloaded); none is used unless "
        "--option execution_provider=NAME asks for it"
    ) in told
    failed = Reported(
        package="onnxruntime-genai-winml", version="0.18.0", directml=True, catalogue_failure="OSError: no"
    )
    told = [one.message for one in found("snapdragon", installed=WINML, reported=failed)["info"]]
    assert "Windows ML's catalogue of execution providers cannot be read: OSError: no" in told


def test_elsewhere_there_is_no_directx():
    cpu = Flavours(
        genai=(Installed(name="onnxruntime-genai", version="0.18.0"),),
        runtimes=(Installed(name="onnxruntime", version="1.24.4"),),
    )
    told = list(diagnosis.findings(LINUX, cpu, Reading(), None, Reported()))
    assert [one.severity for one in told] == ["info"]
    assert "Windows API" in told[-1].message


def test_nothing_installed_is_an_error():
    (error,) = [
        one
        for one in diagnosis.findings(LINUX, Flavours(genai=(), runtimes=()), Reading(), None, Reported())
        if one.remedy
    ]
    assert (error.severity, error.message) == ("error", "ONNX Runtime GenAI is not installed")
    assert error.remedy == 'pip install "phi3-dml[cpu]"'


def test_a_remedy_is_a_command_or_a_sentence_without_one():
    command = re.compile(r"(pip|phi3|sudo|docker) \S")
    both = Flavours(genai=(Installed(name="onnxruntime-genai", version="0.18.0"), GENAI), runtimes=(RUNTIME,))
    states: list[dict[str, Any]] = [
        {},
        {"installed": Flavours()},
        {"installed": both},
        {"directml": None},
        {"reported": Reported(failure="ImportError: no")},
        {"reported": Reported(package="onnxruntime-genai", version="0.18.0", directml=False)},
    ]
    for state in states:
        for name, machine in (*((name, WINDOWS) for name in RECORDED), ("one gpu", LINUX)):
            remedies = [one.remedy for findings in found(name, machine=machine, **state).values() for one in findings]
            for step in (step for remedy in remedies for step in remedy.split(", then ")):
                assert not command.search(step) or (command.match(step) and re.fullmatch(r"[-\w .=/\"\[\]]+", step)), (
                    step
                )


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
