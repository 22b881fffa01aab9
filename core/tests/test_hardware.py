"""GPUs and NPUs that the system lists, with the PCI ids that Linux and Windows show."""

from __future__ import annotations

import json
import sys

import pytest
from phi3_core import hardware
from phi3_core.hardware import Hardware, present, recognize, without_backend

NPU = Hardware(kind="npu", vendor="Intel", number="8086:643e")
ARC = Hardware(kind="gpu", vendor="Intel", number="8086:64a0")
NVIDIA = Hardware(kind="gpu", vendor="NVIDIA", number="10de:2684")


def bus(root, **devices):
    """Lay out a PCI bus: the class and the ids of each device."""
    for number, (pci_class, ids) in enumerate(devices.values()):
        folder = root / "sys" / "bus" / "pci" / "devices" / f"0000:00:{number:02x}.0"
        folder.mkdir(parents=True)
        (folder / "uevent").write_text(f"DRIVER=x\nPCI_CLASS={pci_class}\nPCI_ID={ids}\n", encoding="ascii")


@pytest.mark.skipif(sys.platform == "win32", reason="reads what Linux shows")
def test_linux_lists_the_gpus_and_npus_of_the_bus(tmp_path):
    assert present(tmp_path) == ()
    bus(
        tmp_path,
        bridge=("60000", "8086:6400"),
        gpu=("30000", "8086:64A0"),
        npu=("120000", "8086:643E"),
        fpga=("120000", "8086:09C4"),
        card=("30000", "10DE:2684"),
        second=("30200", "10DE:2684"),
        virtual=("30000", "1AF4:1050"),
        damaged=("30000", "8086"),
    )
    assert present(tmp_path) == (ARC, NPU, NVIDIA)


def test_an_accelerator_is_an_npu_only_if_it_is_known():
    assert recognize(0x8086, 0x7D1D, display=False).kind == "npu"
    assert recognize(0x8086, 0x09C4, display=False) is None
    assert recognize(0x1414, 0x008C, display=True) is None  # Windows' software adapter


@pytest.mark.parametrize(
    ("system", "installed", "kinds", "expected"),
    [
        ("linux", [], [], [(ARC, "phi3-openvino"), (NPU, "phi3-openvino")]),
        ("windows", [], [], [(ARC, "phi3-openvino"), (NPU, "phi3-openvino"), (NVIDIA, "phi3-dml")]),
        ("windows", ["phi3_openvino"], [], [(NVIDIA, "phi3-dml")]),
        ("windows", ["phi3-dml"], [], [(NPU, "phi3-openvino")]),
        ("linux", ["phi3-acme"], ["npu"], [(ARC, "phi3-openvino")]),
        ("linux", ["phi3-acme"], ["npu", "dgpu"], []),
    ],
)
def test_what_no_backend_is_for_has_the_command_that_installs_one(system, installed, kinds, expected):
    found = without_backend([ARC, NPU, NVIDIA], system, installed=installed, kinds=kinds)
    assert list(found) == [(each, f"pip install {name}") for each, name in expected]


def test_devices_names_them(plugins, run_main, monkeypatch):
    plugins.add("parrot")
    monkeypatch.setattr(hardware, "present", lambda: (NPU,))
    _, out, _ = run_main("devices")
    assert "not used: Intel NPU (PCI 8086:643e): no backend for it is installed -> pip install phi3-openvino" in out
    _, out, _ = run_main("devices", "--json")
    (found,) = json.loads(out)["without_backend"]
    assert found["remedy"] == "pip install phi3-openvino"
