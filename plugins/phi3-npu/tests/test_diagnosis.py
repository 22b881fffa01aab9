"""What ``phi3 doctor`` is told about NPUs."""

from __future__ import annotations

import pytest
from phi3_core.machine import this_machine
from phi3_core.values import Machine, Refusal
from phi3_npu import diagnosis
from phi3_npu.hardware.records import Npu, System

LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=2**35)
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=2**35)
WORKING = Npu(
    vendor=0x8086,
    device=0x643E,
    place="0000:00:0b.0",
    driver="1.17.0",
    kernel_driver="intel_vpu",
    node="/dev/accel/accel0",
    node_group="render",
    accessible=True,
)
INSTALLED = {"intel-npu-acceleration-library": "1.4.0", "torch": "2.13.0", "transformers": "4.57.0"}


def told(machine, system, *, obstacle=None, installed=INSTALLED):
    return [(one.severity, one.message) for one in diagnosis.findings(machine, obstacle, system, installed)]


def test_a_working_npu_on_linux():
    found = told(LINUX, System(npus=[WORKING], loader="/usr/lib/libze_loader.so.1"))
    assert {severity for severity, _ in found} == {"info"}
    messages = [message for _, message in found]
    assert messages[0] == (
        "Intel NPU (Lunar Lake) at 0000:00:0b.0: driver 1.17.0 (at least 1.5), kernel driver intel_vpu, "
        "/dev/accel/accel0 may be read and written"
    )
    assert messages[1] == "Level Zero loader: /usr/lib/libze_loader.so.1"
    assert messages[2].startswith("npu:NPU: ")


def test_a_working_npu_on_windows_beside_openvino():
    place = "PCI\\VEN_8086&DEV_7D1D\\3&1"
    npu = Npu(vendor=0x8086, device=0x7D1D, place=place, name="Intel(R) AI Boost", driver="32.0.100.3104")
    found = told(
        WINDOWS,
        System(npus=[npu], loader="C:\\Windows\\System32\\ze_loader.dll"),
        installed={**INSTALLED, "openvino": "2026.4.0"},
    )
    assert {severity for severity, _ in found} == {"info"}
    messages = [message for _, message in found]
    assert "never loaded into the same process" in messages[0]
    assert messages[1] == (
        f"Intel(R) AI Boost (Meteor Lake) at {place}: driver 32.0.100.3104 (at least 32.0.100.2408), working properly"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accessible": False}, "no permission to read and write /dev/accel/accel0"),
        ({"driver": ""}, "user-space driver"),
        ({"driver": "1.2.0"}, "too old"),
        ({"kernel_driver": ""}, "the kernel"),
    ],
)
def test_what_is_wrong_is_an_error_with_its_remedy(changes, message):
    import attrs

    system = System(npus=[attrs.evolve(WORKING, **changes)], loader="/usr/lib/libze_loader.so.1")
    (error,) = [one for one in diagnosis.findings(LINUX, None, system, INSTALLED) if one.severity == "error"]
    assert message in error.message
    assert error.remedy


def test_a_missing_loader_is_told_as_such():
    found = told(LINUX, System(npus=[WORKING]))
    assert ("warning", "no Level Zero loader (libze_loader.so.1, on Windows ze_loader.dll)") in found
    assert any(severity == "error" and "libze_loader.so.1" in message for severity, message in found)


def test_no_npu_is_nothing_wrong():
    found = told(LINUX, System(cpu="AMD EPYC"))
    assert found[-1] == ("info", "this computer has no Intel NPU (AMD EPYC)")
    assert {severity for severity, _ in found} == {"info"}


def test_another_maker_s_npu_is_nothing_wrong():
    npu = Npu(vendor=0x1022, device=0x17F0, place="0000:c5:00.1", kernel_driver="amdxdna")
    found = told(LINUX, System(npus=[npu]))
    assert found[-1] == ("info", "an AMD NPU is here, but this backend drives Intel's NPUs only")


def test_what_the_library_lacks_comes_first():
    obstacle = Refusal(reason="no version for Python 3.13", remedy="use Python 3.12")
    found = told(LINUX, System(), obstacle=obstacle, installed={})
    assert found[0] == ("error", "no version for Python 3.13")


def test_this_machine():
    assert diagnosis.diagnose(this_machine())
