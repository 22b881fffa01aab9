"""Detection of adapters, from what Windows says of machines that are not here, and of this machine's CPU.

``recordings/README.md`` says what the recordings are written after.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from attrs import evolve
from phi3_core.machine import this_machine
from phi3_core.values import Device, Machine, Offer, Refusal
from phi3_dml import detection
from phi3_dml.adapters.records import Reading
from phi3_dml.flavours import Flavours, Installed
from phi3_dml.runtime import Reported

RECORDED = json.loads(Path(__file__).with_name("recordings").joinpath("windows.json").read_text(encoding="utf-8"))
WINDOWS = Machine(os="windows", architecture="x86_64", memory_bytes=32 * 2**30)
ARM = Machine(os="windows", architecture="arm64", memory_bytes=2**34)
LINUX = Machine(os="linux", architecture="x86_64", memory_bytes=16 * 2**30)
DIRECTML = Flavours(
    genai=(Installed(name="onnxruntime-genai-directml", version="0.13.1"),),
    runtimes=(Installed(name="onnxruntime-directml", version="1.24.4"),),
)
WINML = Flavours(
    genai=(Installed(name="onnxruntime-genai-winml", version="0.18.0"),),
    runtimes=(Installed(name="onnxruntime-windowsml", version="1.27.1.202607110137"),),
)
WITH_DIRECTML = Reported(package="onnxruntime-genai-winml", version="0.18.0", directml=True)
CPU = Flavours(
    genai=(Installed(name="onnxruntime-genai", version="0.13.1"),),
    runtimes=(Installed(name="onnxruntime", version="1.24.4"),),
)
NONE = Flavours(genai=(), runtimes=())


def reading(name):
    return Reading(**{key: value for key, value in RECORDED[name].items() if key != "about"})


def split(answers):
    offers = {str(answer.device): answer for answer in answers if isinstance(answer, Offer)}
    return offers, [answer for answer in answers if isinstance(answer, Refusal)]


def on_windows(name):
    """The DirectX devices that are offered, and the refusals."""
    offers, refusals = split(detection.judge(WINDOWS, DIRECTML, reading(name), "a processor"))
    assert offers.pop("dml:CPU").automatic is False
    return offers, refusals


def facts(offer):
    return offer.device.name, offer.device.kind, offer.device.memory_bytes, offer.device.driver


def test_one_gpu():
    offers, refusals = on_windows("one gpu")
    assert {name: facts(offer) for name, offer in offers.items()} == {
        "dml:0": ("NVIDIA GeForce RTX 4070", "dgpu", 12878610432, "32.0.15.6094")
    }
    assert refusals == []
    offer = offers["dml:0"]
    # DirectML multiplies with 4 bits or 16, not with 8.
    assert (offer.precisions, offer.layout, offer.maturity) == (("int4", "fp16"), "dml", "experimental")
    assert offer.notes == detection.UNTRIED


def test_two_gpus_of_different_vendors_have_the_index_that_directml_gives_them():
    offers, refusals = on_windows("two gpus of different vendors")
    assert {name: facts(offer) for name, offer in offers.items()} == {
        "dml:0": ("AMD Radeon RX 7900 XTX", "dgpu", 25753026560, "31.0.24033.1003"),
        "dml:1": ("NVIDIA GeForce RTX 3060", "dgpu", 12717129728, "31.0.15.5244"),
    }
    assert refusals == []


def test_integrated_and_discrete_are_told_apart():
    offers, refusals = on_windows("integrated and discrete")
    assert {name: facts(offer) for name, offer in offers.items()} == {
        # What an integrated GPU can use is mostly the computer's memory.
        "dml:0": ("Intel(R) Iris(R) Xe Graphics", "gpu", 134217728 + 8424423424, "31.0.101.5186"),
        "dml:1": ("NVIDIA GeForce RTX 4060 Laptop GPU", "dgpu", 8333033472, "32.0.15.5585"),
    }
    assert refusals == []


@pytest.mark.parametrize(
    ("name", "gpu", "npu", "remedy"),
    [
        ("integrated gpu and npu", "Intel(R) Arc(TM) Graphics", "Intel(R) AI Boost", "phi3-openvino"),
        ("amd apu", "AMD Radeon(TM) 890M Graphics", "NPU Compute Accelerator Device", ""),
        ("snapdragon", "Qualcomm(R) Adreno(TM) X1-85 GPU", "Hexagon(TM) NPU", ""),
    ],
)
def test_an_npu_that_dxgi_does_not_list_is_refused_and_its_gpu_offered(name, gpu, npu, remedy):
    offers, (refusal,) = on_windows(name)
    assert {key: (offer.device.name, offer.device.kind) for key, offer in offers.items()} == {"dml:0": (gpu, "gpu")}
    assert npu in refusal.reason
    assert "graphics adapters only" in refusal.reason
    assert remedy in refusal.remedy


def test_an_npu_that_dxgi_lists_is_offered_as_one():
    """No such driver is known; DirectML could drive it."""
    recorded = {key: value for key, value in RECORDED["one gpu"].items() if key != "about"}
    recorded["core"] = [{**recorded["core"][0], "npu": True}, recorded["core"][1]]
    offers, refusals = split(detection.directx(Reading(**recorded)))
    assert (offers["dml:0"].device.kind, refusals) == ("npu", [])


def test_a_remote_session_without_gpu_is_refused_with_a_remedy():
    offers, (refusal,) = on_windows("remote session")
    assert offers == {}
    assert "remote session" in refusal.reason
    assert "policy" in refusal.remedy


def test_a_remote_screen_is_never_offered_and_is_counted():
    offers, refusals = on_windows("remote session with a gpu")
    assert {name: offer.device.name for name, offer in offers.items()} == {"dml:1": "NVIDIA GeForce RTX 4070"}
    assert refusals == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no gpu", "no graphics adapter"),
        ("a virtual machine", "no graphics adapter"),
        ("nothing can be read", "adapters: ComError: CreateDXGIFactory: 0x80004002"),
    ],
)
def test_no_gpu(name, reason):
    offers, (refusal,) = on_windows(name)
    assert offers == {}
    assert reason in refusal.reason
    assert refusal.remedy


def test_a_driver_that_crashes_costs_only_its_own_adapter():
    offers, (refusal,) = on_windows("a driver that crashes")
    assert list(offers) == ["dml:0"]
    assert refusal.reason == (
        "AMD Radeon RX 580 Series: its driver crashed (0xC0000005) when it was asked for Direct3D 12"
    )
    assert "amd.com" in refusal.remedy


def test_an_adapter_behind_one_that_fails_is_refused_because_genai_cannot_get_there():
    offers, (crashed, behind) = on_windows("a driver that crashes comes first")
    assert offers == {}
    assert "AMD Radeon RX 580 Series: its driver crashed" in crashed.reason
    assert "NVIDIA GeForce RTX 4070: ONNX Runtime GenAI does not get past AMD Radeon RX 580" in behind.reason
    assert "disable it in the Device Manager" in behind.remedy


def test_a_gpu_without_direct3d_12_is_refused():
    offers, (refusal,) = on_windows("a gpu without direct3d 12")
    assert list(offers) == ["dml:0"]
    assert refusal.reason == "Intel(R) HD Graphics 3000 does not do Direct3D 12 (feature level 11.0)"


def test_without_dxcore_kinds_are_guessed_and_said_to_be():
    offers, refusals = on_windows("no dxcore")
    assert {name: offer.device.kind for name, offer in offers.items()} == {"dml:0": "gpu", "dml:1": "dgpu"}
    assert offers["dml:0"].device.driver == "26.20.100.7262"
    assert all("guessed" in offer.notes for offer in offers.values())
    assert refusals == []


@pytest.mark.parametrize("system", ["linux", "macos"])
def test_elsewhere_the_cpu_is_offered_and_directx_refused(system):
    machine = Machine(os=system, architecture="arm64", memory_bytes=2**34)
    offers, (refusal,) = split(detection.judge(machine, CPU, Reading(), "Neoverse-N1"))
    assert "DirectX 12 is a Windows API" in refusal.reason
    cpu = offers["dml:CPU"]
    assert facts(cpu) == ("ONNX Runtime CPU: Neoverse-N1", "cpu", 2**34, None)
    assert (cpu.precisions, cpu.automatic, cpu.layout) == (("int4", "int8", "fp16"), True, "")
    assert cpu.notes == "ONNX Runtime on the CPU; for DirectX GPUs, install phi3-dml on Windows"


def test_the_cpu_flavour_on_windows_names_the_way_to_the_gpu():
    offers, (refusal,) = split(detection.judge(WINDOWS, CPU, Reading(), ""))
    assert offers["dml:CPU"].automatic is True
    assert "(cpu) cannot use DirectX GPUs" in refusal.reason
    assert refusal.remedy == (
        "pip uninstall -y onnxruntime-genai onnxruntime, then pip install onnxruntime-genai-directml==0.13.1"
    )


def test_windows_on_arm_has_windows_ml():
    """The DirectML flavour has no wheels for it; whether its GPU computes right is unknown."""
    offers, refusals = split(detection.judge(ARM, WINML, reading("snapdragon"), "", reported=WITH_DIRECTML))
    assert facts(offers["dml:0"])[:2] == ("Qualcomm(R) Adreno(TM) X1-85 GPU", "gpu")
    assert offers["dml:CPU"].automatic is False
    assert ["Hexagon" in refusal.reason for refusal in refusals] == [True]


def test_windows_on_arm_without_it_names_the_way_to_it():
    offers, (refusal,) = split(detection.judge(ARM, CPU, Reading(), ""))
    assert offers["dml:CPU"].notes == "ONNX Runtime on the CPU; for DirectX GPUs, install Windows ML's flavour"
    assert refusal.remedy == ('pip uninstall -y onnxruntime-genai onnxruntime, then pip install "phi3-dml[winml]"')


@pytest.mark.parametrize(
    ("machine", "python", "remedy"),
    [
        (WINDOWS, (3, 11), "pip install onnxruntime-genai-directml==0.13.1"),
        (WINDOWS, (3, 14), "pip install onnxruntime-genai-directml==0.13.1"),
        (WINDOWS, (3, 15), 'pip install "phi3-dml[winml]"'),
        (ARM, (3, 11), 'pip install "phi3-dml[winml]"'),
        (ARM, (3, 10), "install Python 3.11 to 3.14 (64-bit)"),
        (WINDOWS, (3, 10), "install Python 3.11 to 3.14 (64-bit)"),
        (evolve(WINDOWS, architecture="x86"), (3, 12), "install Python 3.11 to 3.14 (64-bit)"),
    ],
)
def test_what_to_install_is_what_there_are_wheels_of(machine, python, remedy):
    _, (refusal,) = split(detection.judge(machine, NONE, Reading(), "", python=python))
    assert refusal.remedy == remedy


def test_windows_ml_without_directml_offers_its_cpu_provider_only():
    offers, (refusal,) = split(
        detection.judge(WINDOWS, WINML, reading("one gpu"), "", reported=evolve(WITH_DIRECTML, directml=False))
    )
    assert list(offers) == ["dml:CPU"]
    assert refusal.reason == "onnxruntime-genai-winml 0.18.0 reports that it has no DirectML"


def test_windows_ml_that_cannot_be_imported_offers_nothing():
    failed = Reported(failure="ImportError: DLL load failed")
    offers, (refusal,) = split(detection.judge(WINDOWS, WINML, reading("one gpu"), "", reported=failed))
    assert offers == {}
    assert refusal.reason == "onnxruntime-genai-winml 0.18.0 cannot be imported: ImportError: DLL load failed"
    assert "vc_redist" in refusal.remedy


def test_windows_ml_that_did_not_answer_in_time_is_believed():
    offers, _ = split(detection.judge(WINDOWS, WINML, reading("one gpu"), "", reported=Reported()))
    assert list(offers) == ["dml:0", "dml:CPU"]


@pytest.mark.parametrize("machine", [WINDOWS, LINUX])
def test_nothing_is_installed(machine):
    offers, refusals = split(detection.judge(machine, NONE, Reading(), ""))
    assert offers == {}
    assert refusals[-1].reason == "ONNX Runtime GenAI is not installed"
    assert refusals[-1].remedy.startswith("pip install ")


@pytest.mark.parametrize("machine", [WINDOWS, LINUX])
def test_flavours_in_conflict_offer_nothing(machine):
    both = Flavours(genai=(*CPU.genai, *DIRECTML.genai), runtimes=(*CPU.runtimes, *DIRECTML.runtimes))
    answers = detection.judge(machine, both, reading("one gpu"), "")
    assert answers
    assert all(isinstance(answer, Refusal) and "pip uninstall" in answer.remedy for answer in answers)


def test_the_processor_has_a_name(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7763\nflags\t: fpu\n", encoding="utf-8")
    if os.name != "nt":
        assert detection.cpu_name(tmp_path / "cpuinfo") == "AMD EPYC 7763"
    assert isinstance(detection.cpu_name(tmp_path / "nowhere"), str)


def test_this_machine():
    answers = detection.detect(this_machine())
    assert answers
    assert all(str(offer.device) == "dml:CPU" for offer in split(answers)[0].values()) or os.name == "nt"


def test_a_device_that_is_not_an_index_has_nothing_to_confirm():
    detection.confirm(Device(backend="dml", id="CPU", kind="cpu", name="ONNX Runtime CPU"))
