"""Detection of NPUs: on this machine for real, and from what operating systems say of machines that are not here.

``recordings/README.md`` says what those are written after.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from phi3_core.backend import (
    COMPUTE_ACCELERATOR,
    DEVICE_DESCRIPTION,
    FILTER_CLASS,
    FILTER_ENUMERATOR,
    DeviceManager,
)
from phi3_core.machine import this_machine
from phi3_core.values import Machine, Offer, Refusal
from phi3_npu import detection
from phi3_npu.hardware import cfgmgr, sysfs
from phi3_npu.hardware.records import System

RECORDINGS = Path(__file__).with_name("recordings")
LINUX_TREES = json.loads((RECORDINGS / "linux.json").read_text(encoding="utf-8"))
WINDOWS_ANSWERS = json.loads((RECORDINGS / "windows.json").read_text(encoding="utf-8"))
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=32 * 2**30)
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=32 * 2**30)
NOBODY = 65534


@pytest.fixture
def plant(monkeypatch):
    """Builds a recorded tree where any user can look at it."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    folders = []

    def build(name):
        recorded = LINUX_TREES[name]
        root = Path(tempfile.mkdtemp(prefix="phi3-npu-"))
        folders.append(root)
        root.chmod(0o755)
        for path, content in recorded["files"].items():
            file = root / path.replace(":", "_") if os.name == "nt" else root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            file.chmod(0o666)
        for path, target in recorded["links"].items():
            (root / path).symlink_to(target)
        for path, mode in recorded.get("modes", {}).items():
            (root / path).chmod(mode)
        return root

    yield build
    for folder in folders:
        shutil.rmtree(folder)


class RecordedManager(DeviceManager):
    """Answers as Windows' configuration manager did."""

    def __init__(self, recorded):
        self._recorded = recorded

    def instances(self, wanted, kind):
        return {
            (COMPUTE_ACCELERATOR, FILTER_CLASS): self._recorded["class"],
            ("PCI", FILTER_ENUMERATOR): self._recorded["pci"],
        }[wanted, kind]

    def locate(self, place):
        return list(self._recorded["devices"]).index(place)

    def _device(self, node):
        return list(self._recorded["devices"].values())[node]

    def text(self, node, key):
        return self._device(node).get("name" if key is DEVICE_DESCRIPTION else "driver", "")

    def problem(self, node):
        return self._device(node).get("problem", 0)


def windows(name):
    recorded = WINDOWS_ANSWERS[name]
    return System(
        npus=cfgmgr.npus(RecordedManager(recorded)),
        **{key: recorded[key] for key in ("cpu", "virtual", "loader")},
    )


def split(answers):
    """The offer of an NPU or None, and the refusals; what is always offered is checked here."""
    offers = {str(answer.device): answer for answer in answers if isinstance(answer, Offer)}
    cpu = offers.pop("npu:CPU")
    assert (cpu.device.kind, cpu.automatic, cpu.maturity) == ("cpu", False, "legacy")
    assert "for tests" in cpu.notes
    assert set(offers) <= {"npu:NPU"}
    return offers.get("npu:NPU"), [answer for answer in answers if isinstance(answer, Refusal)]


def check_refused(answers, reason, remedy):
    offer, (refusal,) = split(answers)
    assert offer is None
    assert reason in refusal.reason
    assert remedy in refusal.remedy
    assert bool(refusal.remedy) is bool(remedy)


linux_only = pytest.mark.skipif(os.name == "nt", reason="file names and groups of Linux")


@linux_only
@pytest.mark.parametrize(
    ("name", "generation", "driver", "automatic"),
    [
        ("meteor lake", "Meteor Lake", "1.8.0", True),
        ("arrow lake", "Arrow Lake", "1.35.0", True),
        ("lunar lake", "Lunar Lake", "1.17.0", True),
        ("panther lake", "Panther Lake", "1.28.0", False),
        ("a generation to come", "unknown generation, device fffe", "1.40.0", False),
    ],
)
def test_every_generation_on_linux(plant, name, generation, driver, automatic):
    offer, refusals = split(detection.judge(LINUX, sysfs.read(plant(name))))
    assert refusals == []
    assert offer.device.name == f"Intel NPU ({generation})"
    assert (offer.device.kind, offer.device.driver, offer.maturity) == ("npu", driver, "legacy")
    assert offer.precisions == ("int8", "int4", "fp16")
    # What the library's own OpenVINO does not know is taken only by those who ask for it.
    assert offer.automatic is automatic
    assert ("only when named" in offer.notes) is not automatic


@pytest.mark.parametrize(
    ("name", "generation", "driver", "automatic"),
    [
        ("meteor lake", "Meteor Lake", "32.0.100.3104", True),
        ("arrow lake", "Arrow Lake", "32.0.100.4239", True),
        ("lunar lake", "Lunar Lake", "32.0.100.2688", True),
        ("panther lake", "Panther Lake", "32.0.100.4404", False),
    ],
)
def test_every_generation_on_windows(name, generation, driver, automatic):
    offer, refusals = split(detection.judge(WINDOWS, windows(name)))
    assert refusals == []
    assert offer.device.name == f"Intel(R) AI Boost ({generation})"
    assert (offer.device.driver, offer.automatic) == (driver, automatic)


@linux_only
@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("no kernel driver", "the kernel (5.14.0-427.el9.x86_64) has no driver for it", "modprobe intel_vpu"),
        ("a container without the device", "accel0 is missing", "--device /dev/accel"),
        ("no loader", "libze_loader.so.1", "level-zero"),
        ("no user-space driver", "libze_intel_npu.so.1, is not installed", "linux-npu-driver"),
        ("driver too old", "its driver 1.2.0 is too old; 1.5 is the first for it", "linux-npu-driver"),
        ("amd npu", "an AMD NPU is here, but this backend drives Intel's NPUs only", ""),
        ("virtual machine", "virtual machine", "pass the PCI device"),
        ("wsl", "Windows passes no NPU on", "in Windows itself"),
        ("switched off in the firmware", "no Intel NPU (Intel(R) Core(TM) Ultra 7 155H)", "BIOS"),
        ("no npu", "no Intel NPU (13th Gen Intel(R) Core(TM) i7-13700H)", ""),
    ],
)
def test_what_cannot_be_used_on_linux_is_refused_with_its_remedy(plant, name, reason, remedy):
    check_refused(detection.judge(LINUX, sysfs.read(plant(name))), reason, remedy)


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("no driver", "Multimedia Controller (Meteor Lake): it has no driver", "794734"),
        ("driver too old", "its driver 31.0.100.1776 is too old; the library wants 32.0.100.2408 or newer", "794734"),
        ("disabled", "it is disabled", "devmgmt.msc"),
        ("failed to start", "code 10", "restart Windows"),
        ("amd npu", "NPU Compute Accelerator Device is here, but this backend drives Intel's", "phi3-dml"),
        ("qualcomm npu", "Hexagon(TM) NPU is here, but this backend drives Intel's", "phi3-dml"),
        ("virtual machine", "virtual machine", "host"),
        ("no npu", "no Intel NPU", ""),
    ],
)
def test_what_cannot_be_used_on_windows_is_refused_with_its_remedy(name, reason, remedy):
    check_refused(detection.judge(WINDOWS, windows(name)), reason, remedy)


@linux_only
def test_no_permission(plant):
    root = plant("no permission")
    node = root / "dev/accel/accel0"
    if os.geteuid() == 0:  # root may do everything, so somebody else has to look
        os.seteuid(NOBODY)
    try:
        system = sysfs.read(root)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    offer, (refusal,) = split(detection.judge(LINUX, system))
    assert offer is None
    assert refusal.reason == f"Intel NPU (Meteor Lake): no permission to read and write {node}"
    assert f"chown root:render {node}" in refusal.remedy
    assert "usermod -aG render $USER" in refusal.remedy


def test_a_device_of_a_group_asks_for_no_more_than_to_join_it():
    npu = detection.Npu(
        vendor=0x8086,
        device=0x7D1D,
        place="0",
        kernel_driver="intel_vpu",
        node="/dev/accel/accel0",
        node_group="render",
    )
    refusal = detection.refuse("linux", npu, System())
    assert refusal.remedy == "sudo usermod -aG render $USER, then log out and in again"


@linux_only
def test_of_two_npus_on_linux_the_library_uses_one(plant):
    offer, refusals = split(detection.judge(LINUX, sysfs.read(plant("two npus"))))
    assert refusals == []
    assert "uses one of the 2 NPUs" in offer.notes


def test_of_two_npus_on_windows_the_library_uses_one():
    offer, refusals = split(detection.judge(WINDOWS, windows("two npus")))
    assert refusals == []
    assert "uses one of the 2 NPUs" in offer.notes


@linux_only
def test_an_intel_npu_is_offered_beside_an_amd_one(plant):
    offer, (refusal,) = split(detection.judge(LINUX, sysfs.read(plant("an intel npu beside an amd one"))))
    assert offer.device.name == "Intel NPU (Meteor Lake)"
    assert "AMD" in refusal.reason


@linux_only
def test_libraries_are_found_as_the_loader_finds_them(plant, tmp_path, monkeypatch):
    root = plant("no loader")
    assert sysfs.read(root).loader == ""
    elsewhere = root / "opt/level-zero/lib"
    elsewhere.mkdir(parents=True)
    (elsewhere / "libze_loader.so.1").touch()
    (root / "etc").mkdir()
    cache = b"glibc-ld.so.cache1.1\0/usr/lib/libzstd.so.1\0/opt/level-zero/lib/libze_loader.so.1\0/lib/libz.so.1\0"
    (root / "etc/ld.so.cache").write_bytes(cache)
    assert sysfs.read(root).loader == str(elsewhere / "libze_loader.so.1")
    (tmp_path / "libze_loader.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")
    assert sysfs.read(root).loader == str(tmp_path / "libze_loader.so.1")


def test_an_empty_tree_is_no_error(tmp_path, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert sysfs.read(tmp_path) == System()


@linux_only
def test_what_linux_says_in_a_garbled_way_is_passed_over(plant):
    root = plant("meteor lake")
    for number, content in enumerate(("", "PCI_ID=what:ever\nPCI_CLASS=120000", "PCI_ID=8086\n", "\0")):
        folder = root / f"sys/bus/pci/devices/0000:0{number}:1f.0"
        folder.mkdir()
        (folder / "uevent").write_text(content, encoding="utf-8")
    offer, refusals = split(detection.judge(LINUX, sysfs.read(root)))
    assert (offer.device.name, refusals) == ("Intel NPU (Meteor Lake)", [])


def test_device_instances_of_windows():
    places = ["PCI\\VEN_8086&DEV_7D1D&SUBSYS_00000000&REV_04\\3&11583659&0&58", "ACPI\\QCOM0D0A\\2&DABA3FF&0"]
    assert [cfgmgr.pci(place) for place in places] == [(0x8086, 0x7D1D), (0, 0)]


def test_this_machine():
    machine = this_machine()
    if machine.os not in ("linux", "windows"):
        pytest.skip("neither Linux nor Windows")
    system = detection.read(machine)
    offer, refusals = split(detection.judge(machine, system))
    assert system.cpu
    assert (offer is None) == bool(refusals) or len(system.npus) > 1
