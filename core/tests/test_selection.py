"""Ranking is pure: offers in, order and reasons out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.errors import NoDeviceError
from phi3_core.figures.values import Failure, Figures, Known, age
from phi3_core.plugin import Backend, Broken
from phi3_core.selection import DeviceRequest, choose, effective_policy, overview
from phi3_core.surveys import Answer, Survey
from phi3_core.values import Device, Machine, Offer, Refusal

GIB = 2**30


def offer(name: str, kind: str, *, memory=None, precisions=("int4", "int8"), maturity="stable", automatic=True):
    backend, _, number = name.partition(":")
    device = Device(backend=backend, id=number, kind=kind, name=f"the {name}", memory_bytes=memory)
    return Offer(device=device, precisions=precisions, maturity=maturity, automatic=automatic)


def surveyed(*answers, broken=(), on_battery=False, memory=16 * GIB) -> Survey:
    """A survey of offers and of pairs of a backend and its refusal."""
    found: dict[str, list[Offer | Refusal]] = {}
    for answer in answers:
        name, what = answer if isinstance(answer, tuple) else (answer.device.backend, answer)
        found.setdefault(name, []).append(what)
    return Survey(
        machine=Machine(os="linux", architecture="x86_64", memory_bytes=memory, on_battery=on_battery),
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


# --- what was measured ------------------------------------------------------------------------------------------------

NOW, DAY = 1_000_000.0, 86400.0


def figures(seconds, *, joules=None, precision="int4", **facts) -> Figures:
    """Figures of a device that takes so many seconds for 128 and 128 tokens."""
    return Figures(
        precision=precision,
        first_token_s={128: seconds / 2},
        decode_tokens_per_s=127 / (seconds / 2),
        joules_per_token=joules,
        measured=NOW - 2 * DAY,
        **facts,
    )


def known(*failed, **measured) -> Known:
    """``ov__CPU=figures(…)`` is what was measured of ``ov:CPU``; ``failed`` are names of devices."""
    by_device = {name.replace("__", ":").replace("_0", ".0"): found for name, found in measured.items()}
    return Known(
        figures={(device, found.precision): found for device, found in by_device.items()},
        failures={
            device: Failure(device=device, reason="its process died during generate (SIGSEGV)", time=NOW - 720)
            for device in failed
        },
        now=NOW,
    )


LEGACY = offer("old:NPU", "npu", maturity="legacy")
AMD, NVIDIA = offer("dx:0", "gpu", memory=2 * GIB), offer("dx:2", "dgpu", memory=16 * GIB)
LAPTOP = [CPU, GPU, NPU, LEGACY]
MACHINES: dict[str, tuple[list[Offer], dict[str, Any], Known, list[str]]] = {
    "an NPU laptop on mains power": (LAPTOP, {}, known(), ["ov:GPU.0", "ov:NPU", "old:NPU", "ov:CPU"]),
    "the same on battery": (LAPTOP, {"on_battery": True}, known(), ["ov:NPU", "old:NPU", "ov:GPU.0", "ov:CPU"]),
    "integrated and discrete GPU": ([GPU, DGPU, CPU], {}, known(), ["dx:1", "ov:GPU.0", "ov:CPU"]),
    "three vendors": (
        [CPU, NPU, GPU, AMD, DGPU, NVIDIA],
        {},
        known(),
        ["dx:2", "dx:1", "dx:0", "ov:GPU.0", "ov:NPU", "ov:CPU"],
    ),
    "a container with 2 GB of a 64 GB host": (
        [offer("ov:CPU", "cpu", memory=2 * GIB), offer("dx:CPU", "cpu", memory=2 * GIB, maturity="experimental")],
        {"memory": 2 * GIB},
        known(),
        ["ov:CPU", "dx:CPU"],
    ),
    "figures that contradict the prior": (
        LAPTOP,
        {},
        known(ov__CPU=figures(3.0), ov__GPU_0=figures(5.0)),
        ["ov:CPU", "ov:GPU.0", "ov:NPU", "old:NPU"],
    ),
    "a slow device that alone was measured": (
        LAPTOP,
        {},
        known(ov__CPU=figures(60.0)),
        ["ov:GPU.0", "ov:NPU", "old:NPU", "ov:CPU"],
    ),
    "figures of an older driver": (
        LAPTOP,
        {},
        known(ov__CPU=figures(3.0), ov__GPU_0=figures(5.0, changed="the driver was 1, and is 2")),
        ["ov:GPU.0", "ov:NPU", "old:NPU", "ov:CPU"],
    ),
    "two answers, which do not count yet": (
        LAPTOP,
        {},
        known(ov__CPU=figures(3.0, by="answers", runs=2), ov__GPU_0=figures(5.0)),
        ["ov:GPU.0", "ov:NPU", "old:NPU", "ov:CPU"],
    ),
    "three answers, which count": (
        LAPTOP,
        {},
        known(ov__CPU=figures(3.0, by="answers", runs=3), ov__GPU_0=figures(5.0)),
        ["ov:CPU", "ov:GPU.0", "ov:NPU", "old:NPU"],
    ),
    "figures that differ by noise": (
        [GPU, DGPU],
        {},
        known(ov__GPU_0=figures(3.0), dx__1=figures(3.05)),
        ["dx:1", "ov:GPU.0"],
    ),
    "a fast legacy library for the same NPU": (
        LAPTOP,
        {},
        known(old__NPU=figures(1.0), ov__NPU=figures(4.0), ov__GPU_0=figures(5.0)),
        ["ov:NPU", "old:NPU", "ov:GPU.0", "ov:CPU"],
    ),
    "energy that was measured": (
        LAPTOP,
        {"policy": "efficiency"},
        known(ov__CPU=figures(3.0, joules=0.5), ov__NPU=figures(9.0, joules=0.9), ov__GPU_0=figures(1.0)),
        ["ov:CPU", "ov:NPU", "old:NPU", "ov:GPU.0"],
    ),
    "a device that failed": ([CPU, GPU, DGPU], {}, known("dx:1"), ["ov:GPU.0", "ov:CPU", "dx:1"]),
    "a fast device that failed": (
        [CPU, GPU, DGPU],
        {},
        known("ov:GPU.0", ov__GPU_0=figures(1.0)),
        ["dx:1", "ov:CPU", "ov:GPU.0"],
    ),
}
BY_TIME = "policy performance (auto, on mains power) takes measured times first, then gpu, then npu, then cpu; "
SENTENCES = {
    ("an NPU laptop on mains power", "old:NPU"): "gpu, then npu, then cpu; legacy comes after stable; legacy",
    ("the same on battery", "ov:NPU"): "policy efficiency (auto, on battery) takes npu, then gpu, then cpu",
    ("three vendors", "dx:1"): "less memory than dx:2",
    ("a container with 2 GB of a 64 GB host", "dx:CPU"): "experimental comes after stable; experimental",
    ("figures that contradict the prior", "ov:CPU"): f"{BY_TIME}128 + 128 tokens in 3 s (int4, measured 2 days ago)",
    ("figures that contradict the prior", "ov:GPU.0"): (
        f"{BY_TIME}slower than ov:CPU; 128 + 128 tokens in 5 s (int4, measured 2 days ago)"
    ),
    ("figures that contradict the prior", "ov:NPU"): f"{BY_TIME}npu comes after gpu",
    ("a slow device that alone was measured", "ov:CPU"): (
        f"{BY_TIME}cpu comes after npu; 128 + 128 tokens in 60 s (int4, measured 2 days ago)"
    ),
    ("figures of an older driver", "ov:GPU.0"): (
        f"{BY_TIME}its figures (int4, measured 2 days ago) are not counted: the driver was 1, and is 2"
    ),
    ("three answers, which count", "ov:CPU"): "128 + 128 tokens in 3 s (int4, measured 2 days ago by 3 answers)",
    ("figures that differ by noise", "ov:GPU.0"): "as good as dx:1; gpu comes after dgpu; 128 + 128 tokens in 3 s",
    ("a fast legacy library for the same NPU", "old:NPU"): "legacy comes after stable; 128 + 128 tokens in 1 s",
    ("energy that was measured", "ov:NPU"): (
        "policy efficiency takes measured energy first, then npu, then gpu, then cpu; takes more energy than ov:CPU; "
        "128 + 128 tokens in 9 s, 0.9 J for a token (int4, measured 2 days ago)"
    ),
    ("a device that failed", "dx:1"): (
        "put last for another 48 minutes; it failed 12 minutes ago: its process died during generate (SIGSEGV)"
    ),
    ("a fast device that failed", "ov:GPU.0"): "(SIGSEGV); 128 + 128 tokens in 1 s",
}


def ranking(machine, offers):
    _, facts, found, _ = MACHINES[machine]
    policy = facts.get("policy", "auto")
    survey = surveyed(*offers, **{name: value for name, value in facts.items() if name != "policy"})
    return choose(survey, DeviceRequest(policy=policy), found)


@pytest.mark.parametrize("machine", MACHINES)
def test_an_imaginary_machine_gets_its_order(machine):
    offers, _, _, expected = MACHINES[machine]
    for order in itertools.islice(itertools.permutations(offers), 0, None, 7):
        assert [str(candidate.device) for candidate in ranking(machine, order)] == expected


@pytest.mark.parametrize(("machine", "device"), SENTENCES)
def test_and_each_place_its_sentence(machine, device):
    whys = {str(candidate.device): candidate.why for candidate in ranking(machine, MACHINES[machine][0])}
    assert SENTENCES[machine, device] in whys[device]


def test_figures_that_are_too_few_are_not_told():
    found = known(ov__CPU=figures(3.0, by="answers", runs=2))
    (candidate,) = choose(surveyed(CPU), DeviceRequest(), found)
    assert candidate.why == "the only device that fits"
    assert candidate.figures.runs == 2


def test_no_figure_and_no_failure_replaces_a_device_that_was_named():
    found = known("ov:GPU.0", ov__CPU=figures(1.0))
    (candidate,) = choose(surveyed(*LAPTOP), DeviceRequest(device="ov:GPU.0"), found)
    assert str(candidate.device) == "ov:GPU.0"
    assert candidate.why.startswith("asked for as ov:GPU.0; the only one; it failed 12 minutes ago")
    assert "put last" not in candidate.why


def test_the_figures_are_those_of_a_precision_that_matches():
    found = known(ov__CPU=figures(3.0, precision="int8"))
    assert choose(surveyed(CPU), DeviceRequest(), found)[0].figures.precision == "int8"
    assert choose(surveyed(CPU), DeviceRequest(precision="int4"), found)[0].figures is None


def test_what_is_used_only_when_named_shows_its_figures_too():
    survey = surveyed(CPU, offer("ov:X", "cpu", automatic=False))
    row = overview(survey, "auto", known(ov__X=figures(2.0)))[1]
    assert row.why == "used only when named; 128 + 128 tokens in 2 s (int4, measured 2 days ago)"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "just now"), (59, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (400 * DAY, "400 days ago")],
)
def test_an_age_is_told_in_its_largest_unit(seconds, words):
    assert age(seconds) == words


@given(st.lists(st.tuples(st.sampled_from(["cpu", "gpu", "dgpu", "npu"]), st.none() | st.floats(0.1, 100)), max_size=7))
def test_the_order_is_total_and_keeps_its_promises(devices):
    offers = [offer(f"b:{number}", kind) for number, (kind, _) in enumerate(devices)]
    times = {f"b:{number}": seconds for number, (_, seconds) in enumerate(devices)}
    found = Known(figures={(name, "int4"): figures(s) for name, s in times.items() if s is not None}, now=NOW)
    if not offers:
        return
    ranks = {str(each.device): each.rank for each in choose(surveyed(*offers), DeviceRequest(), found)}
    priors = {str(each.device): each.rank for each in choose(surveyed(*offers), DeviceRequest())}
    assert sorted(ranks.values()) == list(range(1, len(offers) + 1))
    for one, other in itertools.permutations(ranks, 2):
        mine, theirs = times[one], times[other]
        if mine is not None and theirs is not None and mine * 1.11 < theirs:
            assert ranks[one] < ranks[other]  # measured times hold
        if (mine is None) == (theirs is None) and mine == theirs and priors[one] < priors[other]:
            assert ranks[one] < ranks[other]  # and else the prior
        if mine is not None and theirs is None and priors[one] < priors[other]:
            assert ranks[one] < ranks[other]  # nothing unmeasured passes what its kind puts it behind
