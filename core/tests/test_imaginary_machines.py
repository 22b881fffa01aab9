"""Imaginary machines, the order that each gives its devices, and the whole sentence of every place."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from attrs import frozen
from imaginary import GIB, figures, known, offer, surveyed
from phi3_core.errors import NoDeviceError, TooLargeError
from phi3_core.figures.values import Known
from phi3_core.models.fit import fitting_precisions
from phi3_core.models.ref import ModelRef
from phi3_core.plugin import Broken
from phi3_core.selection import NOTHING, DeviceRequest, choose
from phi3_core.values import Offer, Refusal

CPU, NPU = offer("openvino:CPU", "cpu", memory=16 * GIB), offer("openvino:NPU", "npu", precisions=["int4"])
IGPU = offer("openvino:GPU.0", "gpu", memory=16 * GIB)
ARCHIVED_NPU = offer("npu:NPU", "npu", maturity="legacy")
NVIDIA, AMD = offer("dml:1", "dgpu", memory=16 * GIB), offer("dml:2", "dgpu", memory=8 * GIB)
IGPU_OF_DIRECTML = offer("dml:0", "gpu")
LAPTOP = (CPU, IGPU, NPU, ARCHIVED_NPU)
DESKTOP = (CPU, IGPU, NVIDIA)
MAINS, BATTERY = "policy performance (auto, on mains power) takes", "policy efficiency (auto, on battery) takes"
TIMES, ENERGY = "measured times first, then", "measured energy first, then"
DIED = "it failed 12 minutes ago: its process died during generate (SIGSEGV)"


@frozen(kw_only=True)
class Imaginary:
    """A machine, and what is asked of it."""

    offers: tuple[Offer, ...]
    battery: bool = False
    memory: int = 32 * GIB
    known: Known = NOTHING
    asked: Mapping[str, str] = {}
    takes: str
    """What the sentence of each place begins with."""
    places: Mapping[str, str]
    """The devices, best first, each with the rest of its sentence."""


MACHINES = {
    "NPU laptop on mains": Imaginary(
        offers=LAPTOP,
        takes=f"{MAINS} gpu, then npu, then cpu",
        places={
            "openvino:GPU.0": "",
            "openvino:NPU": "npu comes after gpu",
            "npu:NPU": "legacy comes after stable; legacy",
            "openvino:CPU": "cpu comes after npu",
        },
    ),
    "NPU laptop on battery": Imaginary(
        offers=LAPTOP,
        battery=True,
        takes=f"{BATTERY} npu, then gpu, then cpu",
        places={
            "openvino:NPU": "",
            "npu:NPU": "legacy comes after stable; legacy",
            "openvino:GPU.0": "gpu comes after npu",
            "openvino:CPU": "cpu comes after gpu",
        },
    ),
    "integrated and discrete GPU": Imaginary(
        offers=DESKTOP,
        takes=f"{MAINS} dgpu, then gpu, then cpu",
        places={
            "dml:1": "",
            "openvino:GPU.0": "gpu comes after dgpu",
            "openvino:CPU": "cpu comes after gpu",
        },
    ),
    "integrated and discrete GPU on battery": Imaginary(
        offers=DESKTOP,
        battery=True,
        takes=f"{BATTERY} gpu, then cpu, then dgpu",
        places={
            "openvino:GPU.0": "",
            "openvino:CPU": "cpu comes after gpu",
            "dml:1": "dgpu comes after cpu",
        },
    ),
    "three vendors": Imaginary(
        offers=(CPU, NPU, IGPU, IGPU_OF_DIRECTML, NVIDIA, AMD),
        takes=f"{MAINS} dgpu, then gpu, then npu, then cpu",
        places={
            "dml:1": "",
            "dml:2": "less memory than dml:1",
            "openvino:GPU.0": "gpu comes after dgpu",
            "dml:0": "its memory is not known, that of openvino:GPU.0 is",
            "openvino:NPU": "npu comes after gpu",
            "openvino:CPU": "cpu comes after npu",
        },
    ),
    "two cards that are alike": Imaginary(
        offers=(offer("dml:3", "dgpu", memory=16 * GIB), NVIDIA),
        takes=f"{MAINS} dgpu",
        places={"dml:1": "", "dml:3": "after dml:1 by name"},
    ),
    "container with 2 GB of a 64 GB host": Imaginary(
        offers=(
            offer("openvino:CPU", "cpu", memory=2 * GIB),
            offer("dml:CPU", "cpu", memory=2 * GIB, maturity="experimental"),
        ),
        memory=2 * GIB,
        takes=f"{MAINS} cpu",
        places={"openvino:CPU": "", "dml:CPU": "experimental comes after stable; experimental"},
    ),
    "one device": Imaginary(
        offers=(CPU,),
        takes="the only device that fits",
        places={"openvino:CPU": ""},
    ),
    "figures that contradict the prior": Imaginary(
        offers=LAPTOP,
        known=known(**{"openvino:CPU": figures(3.0), "openvino:GPU.0": figures(5.0)}),
        takes=f"{MAINS} {TIMES} gpu, then npu, then cpu",
        places={
            "openvino:CPU": "128 + 128 tokens in 3 s (int4, measured 2 days ago)",
            "openvino:GPU.0": ("slower than openvino:CPU; 128 + 128 tokens in 5 s (int4, measured 2 days ago)"),
            "openvino:NPU": "npu comes after gpu",
            "npu:NPU": "legacy comes after stable; legacy",
        },
    ),
    "a slow device that alone was measured": Imaginary(
        offers=LAPTOP,
        known=known(**{"openvino:CPU": figures(60.0)}),
        takes=f"{MAINS} {TIMES} gpu, then npu, then cpu",
        places={
            "openvino:GPU.0": "",
            "openvino:NPU": "npu comes after gpu",
            "npu:NPU": "legacy comes after stable; legacy",
            "openvino:CPU": "cpu comes after npu; 128 + 128 tokens in 60 s (int4, measured 2 days ago)",
        },
    ),
    "figures of an older driver": Imaginary(
        offers=(CPU, IGPU, NPU),
        known=known(
            **{
                "openvino:CPU": figures(3.0),
                "openvino:GPU.0": figures(1.0, changed="the driver was 31.0.101, and is 32.0.101"),
            }
        ),
        takes=f"{MAINS} {TIMES} gpu, then npu, then cpu",
        places={
            "openvino:GPU.0": (
                "its figures (int4, measured 2 days ago) are not counted: the driver was 31.0.101, and is 32.0.101"
            ),
            "openvino:NPU": "npu comes after gpu",
            "openvino:CPU": "cpu comes after npu; 128 + 128 tokens in 3 s (int4, measured 2 days ago)",
        },
    ),
    "two answers, which do not count yet": Imaginary(
        offers=(CPU, IGPU),
        known=known(**{"openvino:CPU": figures(3.0, by="answers", runs=2), "openvino:GPU.0": figures(5.0)}),
        takes=f"{MAINS} {TIMES} gpu, then cpu",
        places={
            "openvino:GPU.0": "128 + 128 tokens in 5 s (int4, measured 2 days ago)",
            "openvino:CPU": "cpu comes after gpu",
        },
    ),
    "three answers, which count": Imaginary(
        offers=(CPU, IGPU),
        known=known(**{"openvino:CPU": figures(3.0, by="answers", runs=3), "openvino:GPU.0": figures(5.0)}),
        takes=f"{MAINS} {TIMES} gpu, then cpu",
        places={
            "openvino:CPU": "128 + 128 tokens in 3 s (int4, measured 2 days ago by 3 answers)",
            "openvino:GPU.0": ("slower than openvino:CPU; 128 + 128 tokens in 5 s (int4, measured 2 days ago)"),
        },
    ),
    "figures that differ by noise": Imaginary(
        offers=(IGPU, NVIDIA),
        known=known(**{"openvino:GPU.0": figures(3.0), "dml:1": figures(3.05)}),
        takes=f"{MAINS} {TIMES} dgpu, then gpu",
        places={
            "dml:1": "128 + 128 tokens in 3.05 s (int4, measured 2 days ago)",
            "openvino:GPU.0": (
                "as good as dml:1; gpu comes after dgpu; 128 + 128 tokens in 3 s (int4, measured 2 days ago)"
            ),
        },
    ),
    "archived NPU library, faster than OpenVINO's NPU": Imaginary(
        offers=(CPU, NPU, ARCHIVED_NPU),
        battery=True,
        known=known(**{"npu:NPU": figures(1.0), "openvino:NPU": figures(4.0)}),
        takes=f"{BATTERY} npu, then cpu",
        places={
            "openvino:NPU": "128 + 128 tokens in 4 s (int4, measured 2 days ago)",
            "npu:NPU": ("legacy comes after stable; 128 + 128 tokens in 1 s (int4, measured 2 days ago); legacy"),
            "openvino:CPU": "cpu comes after npu",
        },
    ),
    "archived NPU library alone": Imaginary(
        offers=(CPU, ARCHIVED_NPU),
        battery=True,
        takes=f"{BATTERY} npu, then cpu",
        places={"npu:NPU": "legacy", "openvino:CPU": "cpu comes after npu"},
    ),
    "energy that was measured": Imaginary(
        offers=(CPU, IGPU, NPU),
        asked={"policy": "efficiency"},
        known=known(
            **{
                "openvino:CPU": figures(3.0, joules=0.5),
                "openvino:NPU": figures(9.0, joules=0.9),
                "openvino:GPU.0": figures(1.0),
            }
        ),
        takes=f"policy efficiency takes {ENERGY} npu, then gpu, then cpu",
        places={
            "openvino:CPU": "128 + 128 tokens in 3 s, 0.5 J for a token (int4, measured 2 days ago)",
            "openvino:NPU": (
                "takes more energy than openvino:CPU; "
                "128 + 128 tokens in 9 s, 0.9 J for a token (int4, measured 2 days ago)"
            ),
            "openvino:GPU.0": "gpu comes after npu; 128 + 128 tokens in 1 s (int4, measured 2 days ago)",
        },
    ),
    "a device that failed within the hour": Imaginary(
        offers=DESKTOP,
        known=known("dml:1", **{"dml:1": figures(1.0)}),
        takes=f"{MAINS} {TIMES} dgpu, then gpu, then cpu",
        places={
            "openvino:GPU.0": "",
            "openvino:CPU": "cpu comes after gpu",
            "dml:1": (f"put last for another 48 minutes; {DIED}; 128 + 128 tokens in 1 s (int4, measured 2 days ago)"),
        },
    ),
    "all devices failed within the hour": Imaginary(
        offers=(CPU, IGPU),
        known=known("openvino:CPU", "openvino:GPU.0"),
        takes=f"{MAINS} gpu, then cpu",
        places={
            "openvino:GPU.0": f"put last for another 48 minutes; {DIED}",
            "openvino:CPU": f"put last for another 48 minutes; {DIED}",
        },
    ),
    "named device, which failed and is slower": Imaginary(
        offers=DESKTOP,
        asked={"device": "openvino:GPU.0"},
        known=known("openvino:GPU.0", **{"openvino:CPU": figures(1.0)}),
        takes="asked for as openvino:GPU.0; the only one",
        places={"openvino:GPU.0": DIED},
    ),
    "named kind": Imaginary(
        offers=(CPU, IGPU, NVIDIA, AMD),
        asked={"device": "gpu"},
        takes=f"asked for as gpu; {MAINS} dgpu, then gpu",
        places={
            "dml:1": "",
            "dml:2": "less memory than dml:1",
            "openvino:GPU.0": "gpu comes after dgpu",
        },
    ),
    "named backend on battery": Imaginary(
        offers=(*LAPTOP, NVIDIA),
        battery=True,
        asked={"device": "openvino"},
        takes=f"asked for as openvino; {BATTERY} npu, then gpu, then cpu",
        places={
            "openvino:NPU": "",
            "openvino:GPU.0": "gpu comes after npu",
            "openvino:CPU": "cpu comes after gpu",
        },
    ),
}


def ranking(machine, offers):
    return choose(
        surveyed(*offers, on_battery=machine.battery, memory=machine.memory),
        DeviceRequest(**machine.asked),
        machine.known,
    )


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_gives_its_order_and_a_sentence_for_each_place(name):
    machine = MACHINES[name]
    found = [(str(each.device), each.why) for each in ranking(machine, machine.offers)]
    assert found == [(device, "; ".join(filter(None, (machine.takes, why)))) for device, why in machine.places.items()]


@pytest.mark.parametrize("name", MACHINES)
def test_the_order_is_the_same_however_the_backends_answer(name):
    machine = MACHINES[name]
    for offers in itertools.islice(itertools.permutations(machine.offers), 0, None, 7):
        assert [str(each.device) for each in ranking(machine, offers)] == list(machine.places)


EMPTY = {
    "no backend": ((), (), "auto", "no backend is installed (pip install phi3-openvino)"),
    "backends without hardware": (
        (("openvino", Refusal(reason="OpenVINO finds no Intel GPU")), ("dml", Refusal(reason="DirectX is of Windows"))),
        (),
        "auto",
        "no usable device; openvino: OpenVINO finds no Intel GPU; dml: DirectX is of Windows (phi3 devices)",
    ),
    "a broken backend": (
        (),
        (Broken(plugin="dml", distribution="phi3-dml", error="ImportError: no d3d12.dll"),),
        "auto",
        "no usable device; dml is broken: ImportError: no d3d12.dll (phi3 devices)",
    ),
    "a named device that is not there": (
        (CPU, ("openvino", Refusal(reason="OpenVINO finds no Intel NPU"))),
        (),
        "openvino:NPU",
        "no device fits 'openvino:NPU'; openvino: OpenVINO finds no Intel NPU (phi3 devices)",
    ),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_machine_without_a_device_says_why(name):
    answers, broken, device, words = EMPTY[name]
    with pytest.raises(NoDeviceError) as caught:
        choose(surveyed(*answers, broken=broken), DeviceRequest(device=device))
    assert str(caught.value) == words


def test_a_container_refuses_what_its_limit_does_not_hold():
    machine = MACHINES["container with 2 GB of a 64 GB host"]
    model = ModelRef(name="phi-3-mini-4k-instruct", form="named")
    with pytest.raises(TooLargeError) as caught:
        fitting_precisions(model, ranking(machine, machine.offers)[0].device, ("int4", "int8"))
    assert str(caught.value) == (
        "phi-3-mini-4k-instruct at int4 needs 2.6 GB with 1024 tokens of context, and openvino:CPU has 2.1 GB, of "
        "which 90% may be used (choose a smaller model: phi3 models list)"
    )
