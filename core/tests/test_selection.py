"""Ranking is pure: offers in, order and reasons out."""

from __future__ import annotations

import itertools

import pytest
from phi3_core.errors import NoDeviceError
from phi3_core.plugin import Backend, Broken
from phi3_core.selection import DeviceRequest, choose, effective_policy, overview
from phi3_core.surveys import Answer, Survey
from phi3_core.values import Device, Machine, Offer, Refusal

GIB = 2**30


def offer(name: str, kind: str, *, memory=None, precisions=("int4", "int8"), maturity="stable", automatic=True):
    backend, _, number = name.partition(":")
    device = Device(backend=backend, id=number, kind=kind, name=f"the {name}", memory_bytes=memory)
    return Offer(device=device, precisions=precisions, maturity=maturity, automatic=automatic)


def surveyed(*answers, broken=(), on_battery=False) -> Survey:
    """A survey of offers and of pairs of a backend and its refusal."""
    found: dict[str, list[Offer | Refusal]] = {}
    for answer in answers:
        name, what = answer if isinstance(answer, tuple) else (answer.device.backend, answer)
        found.setdefault(name, []).append(what)
    return Survey(
        machine=Machine(os="linux", architecture="x86_64", memory_bytes=16 * GIB, on_battery=on_battery),
        answers=[
            Answer(
                backend=Backend(name=name, target=name, distribution=f"phi3-{name}", version="1"),
                hooks=(),
                offers=[what for what in said if isinstance(what, Offer)],
                refusals=[what for what in said if isinstance(what, Refusal)],
            )
            for name, said in found.items()
        ],
        broken=broken,
    )


CPU, NPU = offer("ov:CPU", "cpu"), offer("ov:NPU", "npu", precisions=["int4"])
GPU, DGPU = offer("ov:GPU.0", "gpu"), offer("dx:1", "dgpu", memory=8 * GIB)


def order(survey: Survey, **wish) -> list[str]:
    return [str(candidate.device) for candidate in choose(survey, DeviceRequest(**wish))]


@pytest.mark.parametrize(
    ("policy", "on_battery", "expected"),
    [
        ("performance", False, ["dx:1", "ov:GPU.0", "ov:NPU", "ov:CPU"]),
        ("efficiency", False, ["ov:NPU", "ov:GPU.0", "ov:CPU", "dx:1"]),
        ("auto", False, ["dx:1", "ov:GPU.0", "ov:NPU", "ov:CPU"]),
        ("auto", True, ["ov:NPU", "ov:GPU.0", "ov:CPU", "dx:1"]),
    ],
)
def test_the_policy_orders_kinds_whatever_order_they_come_in(policy, on_battery, expected):
    for offers in itertools.permutations([CPU, NPU, GPU, DGPU]):
        assert order(surveyed(*offers, on_battery=on_battery), policy=policy) == expected


def test_then_maturity_then_memory_then_name():
    small, large = offer("a:0", "dgpu", memory=4 * GIB), offer("a:1", "dgpu", memory=8 * GIB)
    early, twin = offer("a:2", "dgpu", memory=80 * GIB, maturity="experimental"), offer("b:0", "dgpu", memory=8 * GIB)
    assert order(surveyed(early, twin, small, large)) == ["a:1", "b:0", "a:0", "a:2"]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("ov", ["ov:GPU.0", "ov:NPU", "ov:CPU"]),
        ("gpu", ["dx:1", "ov:GPU.0"]),
        ("dgpu", ["dx:1"]),
        ("npu", ["ov:NPU"]),
        ("CPU", ["ov:CPU"]),
        ("OV:gpu.0", ["ov:GPU.0"]),
        ("ov:GPU", ["ov:GPU.0"]),
    ],
)
def test_a_device_word_is_a_backend_a_kind_or_a_device(device, expected):
    assert order(surveyed(CPU, NPU, GPU, DGPU), device=device) == expected


def test_a_kind_and_a_backend_of_the_same_name_mean_both():
    assert order(surveyed(NPU, offer("npu:NPU", "npu"), CPU), device="npu") == ["npu:NPU", "ov:NPU"]


def test_a_device_named_in_full_is_the_only_candidate():
    assert order(surveyed(CPU, GPU, offer("npu:CPU", "cpu")), device="ov:CPU") == ["ov:CPU"]


def test_what_is_not_automatic_is_taken_only_when_it_is_named_in_full():
    fallback = offer("npu:CPU", "cpu", automatic=False)
    survey = surveyed(CPU, fallback)
    assert order(survey) == order(survey, device="cpu") == ["ov:CPU"]
    assert order(survey, device="npu:cpu") == ["npu:CPU"]
    assert [(str(row.device), row.rank) for row in overview(survey, "auto")] == [("ov:CPU", 1), ("npu:CPU", None)]
    with pytest.raises(NoDeviceError, match="npu:CPU"):
        choose(surveyed(fallback), DeviceRequest())


def test_a_precision_filters_devices_and_narrows_what_they_run():
    ranking = choose(surveyed(CPU, NPU, GPU), DeviceRequest(precision="int8"))
    assert [(str(c.device), c.precisions) for c in ranking] == [
        ("ov:GPU.0", ("int8",)),
        ("ov:CPU", ("int8",)),
    ]
    with pytest.raises(NoDeviceError, match="ov:NPU runs int4") as caught:
        choose(surveyed(NPU), DeviceRequest(precision="fp16"))
    assert caught.value.hint


def test_every_place_has_its_reason():
    whys = {str(c.device): c.why for c in choose(surveyed(CPU, NPU, DGPU), DeviceRequest())}
    assert whys["dx:1"] == "policy performance (auto, on mains power) takes dgpu, then npu, then cpu"
    assert whys["ov:NPU"].endswith("npu comes after dgpu")
    assert whys["ov:CPU"].endswith("cpu comes after npu")
    assert choose(surveyed(CPU), DeviceRequest())[0].why == "the only device that fits"
    assert "asked for as cpu" in choose(surveyed(CPU, NPU), DeviceRequest(device="cpu"))[0].why


def test_nothing_to_choose_from_says_what_everybody_answered():
    refusal = ("ov", Refusal(reason="no Intel GPU"))
    broken = [Broken(plugin="dx", distribution="phi3-dx", error="ImportError: x.dll")]
    with pytest.raises(NoDeviceError, match="no usable device; ov: no Intel GPU; dx is broken: ImportError: x.dll"):
        choose(surveyed(refusal, broken=broken), DeviceRequest())
    with pytest.raises(NoDeviceError, match="no device fits 'gpu'; ov: no Intel GPU"):
        choose(surveyed(CPU, refusal), DeviceRequest(device="gpu"))
    with pytest.raises(NoDeviceError, match="no backend is installed") as caught:
        choose(surveyed(), DeviceRequest())
    assert caught.value.hint == "pip install phi3-openvino"


def test_policies_say_what_they_come_to():
    assert effective_policy("auto", on_battery=True) == ("efficiency", "policy efficiency (auto, on battery)")
    assert effective_policy("performance", on_battery=True) == ("performance", "policy performance")
