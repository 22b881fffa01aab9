"""Ranking is pure: offers in, order and reasons out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaginary import DAY, GIB, NOW, figures, known, offer, surveyed
from phi3_core.errors import NoDeviceError
from phi3_core.figures.values import Known, age
from phi3_core.plugin import Broken
from phi3_core.selection import DeviceRequest, choose, effective_policy, overview
from phi3_core.surveys import Survey
from phi3_core.values import Refusal

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


def test_figures_that_are_too_few_are_not_told():
    found = known(ov__CPU=figures(3.0, by="answers", runs=2))
    (candidate,) = choose(surveyed(CPU), DeviceRequest(), found)
    assert candidate.why == "the only device that fits"
    assert candidate.figures.runs == 2


def test_no_figure_and_no_failure_replaces_a_device_that_was_named():
    found = known("ov:GPU.0", ov__CPU=figures(1.0))
    (candidate,) = choose(surveyed(CPU, GPU, NPU), DeviceRequest(device="ov:GPU.0"), found)
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


@pytest.mark.parametrize("seconds", [0.5, 1.0, 3.0, 3.142, 22.1, 100.0])
@pytest.mark.parametrize("ratio", [1.001, 1.03, 1.09])
def test_a_difference_that_is_noise_is_noise_for_every_figure(seconds, ratio):
    offers = (offer("a:CPU", "cpu"), offer("b:CPU", "cpu", maturity="experimental"))
    times = {("a:CPU", "int4"): figures(seconds * ratio), ("b:CPU", "int4"): figures(seconds)}
    first, second = choose(surveyed(*offers), DeviceRequest(), Known(figures=times, now=NOW))
    assert str(first.device) == "a:CPU"
    assert "as good as a:CPU; experimental comes after stable" in second.why


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
    best = min((seconds for seconds in times.values() if seconds is not None), default=0)
    for one, other in itertools.permutations(ranks, 2):
        mine, theirs = times[one], times[other]
        if mine is not None and theirs is not None and mine * 1.11 < theirs:
            assert ranks[one] < ranks[other]  # measured times hold
        if None not in (mine, theirs) and max(mine, theirs) <= 1.1 * best and priors[one] < priors[other]:
            assert ranks[one] < ranks[other]  # and noise does not change the order
        if (mine is None) == (theirs is None) and mine == theirs and priors[one] < priors[other]:
            assert ranks[one] < ranks[other]  # and else the prior
        if mine is not None and theirs is None and priors[one] < priors[other]:
            assert ranks[one] < ranks[other]  # nothing unmeasured passes what its kind puts it behind
