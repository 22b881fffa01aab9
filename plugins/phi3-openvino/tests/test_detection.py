"""Detection: on this machine for real, and from what OpenVINO says about machines that are not here.

The first of ``recorded_devices.json`` is a recording. The others are written after what OpenVINO's documentation and
users' reports show of such machines: nobody has recorded one with this project yet.
"""

from __future__ import annotations

import json
from pathlib import Path

import openvino
import pytest
from phi3_core import requirements
from phi3_core.machine import this_machine
from phi3_core.values import Machine, Offer, Refusal
from phi3_openvino import detection

RECORDED = json.loads(Path(__file__).with_name("recorded_devices.json").read_text(encoding="utf-8"))
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=16 * 2**30)
NOTHING: dict[str, detection.Obstacle | None] = {}


class RecordedCore:
    """Answers as ``openvino.Core`` did."""

    def __init__(self, devices):
        self._devices = devices
        self.available_devices = list(devices)

    def get_property(self, device, name):
        try:
            return self._devices[device][name]
        except KeyError:
            raise RuntimeError(f"{device} does not support {name}") from None


def answers(name, machine=LINUX, hardware=NOTHING):
    found = detection.judge(machine, detection.read(RecordedCore(RECORDED[name])), hardware)
    offers = {str(answer.device): answer for answer in found if isinstance(answer, Offer)}
    return offers, [answer for answer in found if not isinstance(answer, Offer)]


def test_this_machine_offers_its_cpu():
    machine = this_machine()
    offers = [answer for answer in detection.detect(machine) if isinstance(answer, Offer)]
    (cpu,) = [offer for offer in offers if str(offer.device) == "openvino:CPU"]
    assert cpu.device.memory_bytes == machine.memory_bytes
    assert cpu.precisions == ("int4", "int8", "fp16")
    assert cpu.automatic


def test_the_npu_pipeline_on_the_cpu_is_offered_where_openvino_has_it_and_used_when_named():
    machine = this_machine()
    offers = {str(answer.device): answer for answer in detection.detect(machine) if isinstance(answer, Offer)}
    has_it = detection.has_npu_plugin(openvino.Core())
    assert ("openvino:NPU-CPU" in offers) == has_it == (machine.architecture == "x86_64" and machine.os != "macos")
    offer = detection.offer_npu_on_cpu(machine, {"CPU": {"FULL_DEVICE_NAME": " A  processor "}})
    assert (offer.device.kind, offer.device.name) == ("cpu", "A processor (OpenVINO's NPU pipeline)")
    assert (offer.automatic, offer.layout, offer.precisions) == (False, "npu", ("int4", "fp16"))


def test_a_single_gpu_is_the_first_of_its_kind():
    offers, refusals = answers("integrated gpu and npu")
    assert list(offers) == ["openvino:CPU", "openvino:GPU.0", "openvino:NPU"]
    gpu = offers["openvino:GPU.0"].device
    assert (gpu.kind, gpu.name, gpu.memory_bytes) == ("gpu", "Intel(R) Arc(TM) Graphics (iGPU)", 15505166336)
    npu = offers["openvino:NPU"]
    assert (npu.device.kind, npu.device.driver, npu.precisions) == ("npu", "1688, compiler 7.28", ("int4",))
    assert npu.notes == detection.UNTRIED
    assert refusals == []


def test_an_npus_driver_has_its_compiler_if_it_tells_one():
    assert detection.describe_npu_driver({"NPU_DRIVER_VERSION": "1688"}) == "1688"
    assert detection.describe_npu_driver({"NPU_DRIVER_VERSION": "1688", "NPU_COMPILER_VERSION": "new"}) == (
        "1688, compiler new"
    )
    assert detection.describe_npu_driver({}) is None


def test_integrated_and_discrete_are_told_apart():
    offers, refusals = answers("two gpus")
    assert {name: offer.device.kind for name, offer in offers.items()} == {
        "openvino:CPU": "cpu",
        "openvino:GPU.0": "gpu",
        "openvino:GPU.1": "dgpu",
    }
    (npu,) = refusals
    assert npu.reason == "OpenVINO finds no Intel NPU"


def test_an_npu_without_its_driver_is_refused_with_the_remedy():
    offers, refusals = answers("npu without its driver")
    assert list(offers) == ["openvino:CPU"]
    assert [refusal.reason for refusal in refusals] == [
        "the NPU does not tell its driver",
        "OpenVINO finds no Intel GPU",
    ]
    assert "linux-npu-driver" in refusals[0].remedy


@pytest.mark.parametrize("system", ["linux", "windows", "macos"])
def test_what_is_missing_is_refused_on_every_system(system):
    machine = Machine(os=system, architecture="x86_64", memory_bytes=1)
    _, refusals = answers("cpu only", machine)
    assert [refusal.reason for refusal in refusals] == ["OpenVINO finds no Intel GPU", "OpenVINO finds no Intel NPU"]


def test_hardware_that_the_system_sees_and_openvino_does_not_is_said_to_be_there(tmp_path):
    for folder, vendor in (("drm/card0", "0x8086"), ("accel/accel0", "0x8086"), ("drm/card1", "0x10de")):
        (tmp_path / folder / "device").mkdir(parents=True)
        (tmp_path / folder / "device" / "vendor").write_text(f"{vendor}\n", encoding="ascii")
    for node in ("dri/renderD128", "accel/accel0"):
        (tmp_path / "dev" / node).parent.mkdir(parents=True)
        (tmp_path / "dev" / node).touch()
    hardware = detection.intel_hardware(tmp_path, tmp_path / "dev")
    assert hardware == {"gpu": None, "npu": None}
    _, refusals = answers("cpu only", hardware=hardware)
    assert [refusal.reason for refusal in refusals] == [
        "an Intel GPU is here, but OpenVINO cannot use it",
        "an Intel NPU is here, but OpenVINO cannot use it",
    ]
    assert all(refusal.remedy for refusal in refusals)
    assert detection.intel_hardware(tmp_path / "nowhere") == NOTHING


def test_in_a_container_without_the_device_the_remedy_is_to_pass_it_on(tmp_path, monkeypatch):
    (tmp_path / "drm/card0/device").mkdir(parents=True)
    (tmp_path / "drm/card0/device/vendor").write_text("0x8086\n", encoding="ascii")
    devices = tmp_path / "dev"
    _, (gpu, _) = answers("cpu only", hardware=detection.intel_hardware(tmp_path, devices))
    assert gpu.reason == f"an Intel GPU is here, but {devices / 'dri'} is not"
    assert f"--device {devices / 'dri'}" in gpu.remedy
    node = devices / "dri" / "renderD128"
    node.parent.mkdir(parents=True)
    node.touch()
    monkeypatch.setattr(detection.os, "access", lambda path, mode: False)  # root may open everything
    _, (gpu, _) = answers("cpu only", hardware=detection.intel_hardware(tmp_path, devices))
    assert gpu.reason == f"an Intel GPU is here, but this user may not open {node}"
    assert gpu.remedy == "join the group that owns it, and log in again"
    monkeypatch.setattr(Path, "group", lambda _: "video")
    _, (gpu, _) = answers("cpu only", hardware=detection.intel_hardware(tmp_path, devices))
    assert gpu.remedy == "sudo usermod -aG video $USER, then log out and in again"


def test_without_openvino_genai_the_devices_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(requirements, "installed_versions", lambda names, path: {})
    (refusal,) = detection.detect(Machine(os="linux", architecture="x86_64", memory_bytes=2**34))
    assert refusal == Refusal(reason="openvino-genai is not installed", remedy="pip install openvino-genai")
    monkeypatch.undo()
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    (refusal,) = detection.detect(Machine(os="linux", architecture="x86_64", memory_bytes=2**34))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "the files of openvino-genai are missing, although it is installed"
