"""What crosses the plugin boundary: validated when made, and the same after a journey through JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from attrs.exceptions import FrozenInstanceError
from phi3_core.values import (
    Artifact,
    Device,
    Finding,
    GenerationRequest,
    Machine,
    Offer,
    Published,
    Recipe,
    Refusal,
    Sampling,
    Source,
    to_plain,
)

DEVICE = Device(backend="acme", id="GPU.0", kind="gpu", name="Acme 3000", memory_bytes=8, driver="1.2")


@pytest.mark.parametrize(
    "value",
    [
        Machine(os="linux", architecture="x86_64", memory_bytes=1, on_battery=True),
        DEVICE,
        Offer(device=DEVICE, precisions=["int4", "fp16"], maturity="legacy", notes="n", automatic=False),
        Refusal(reason="no hardware", remedy="buy some"),
        Recipe(precision="int4", group_size=128, ratio=0.6, symmetric=True, extra={"a": "b"}),
        Source(path=Path("somewhere"), model="m", revision="r"),
        Artifact(path=Path("somewhere"), backend="acme", precision="int8", manifest={"digest": "d"}),
        Published(repository="a/b", folder="c", revision=None),
        GenerationRequest(prompt_ids=[1, 2], max_new_tokens=3, sampling=Sampling(seed=4), stop_ids=[5]),
        Finding(severity="warning", message="m", remedy="r"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_the_same_after_a_journey_through_json(value):
    assert type(value)(**json.loads(json.dumps(to_plain(value)))) == value
    with pytest.raises(FrozenInstanceError):
        value.surprise = 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Device(backend="a", id="0", kind="tpu", name="x"),
        lambda: Device(backend="", id="0", kind="cpu", name="x"),
        lambda: Device(backend="a", id="0", kind="cpu", name="x", memory_bytes=-1),
        lambda: Offer(device=DEVICE, precisions=[]),
        lambda: Offer(device=DEVICE, precisions=["int3"]),
        lambda: Offer(device=DEVICE, precisions="int4"),
        lambda: Offer(device="acme:0", precisions=["int4"]),
        lambda: Offer(device=DEVICE, precisions=["int4"], maturity="mature"),
        lambda: Refusal(reason=""),
        lambda: Recipe(precision="int4", group_size=0),
        lambda: Recipe(precision="int4", ratio=1.5),
        lambda: Sampling(temperature=-1),
        lambda: Sampling(temperature=float("nan")),
        lambda: Sampling(top_p=0),
        lambda: Sampling(top_p=3),
        lambda: Sampling(top_k=-1),
        lambda: Sampling(repetition_penalty=0),
        lambda: Sampling(seed=2**32),
        lambda: GenerationRequest(prompt_ids=[], max_new_tokens=1),
        lambda: GenerationRequest(prompt_ids=[1], max_new_tokens=0),
        lambda: Finding(severity="fatal", message="m"),
    ],
)
def test_nonsense_is_refused_when_it_is_made(make):
    with pytest.raises((TypeError, ValueError)):
        make()


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda: Offer(device=DEVICE, precisions=("fp32",)),
            ValueError,
            "Offer: precisions must be fp16, int8 or int4, not 'fp32'",
        ),
        (
            lambda: Offer(device=DEVICE, precisions="int4"),
            TypeError,
            "Offer: precisions must be a sequence of fp16, int8 or int4, not a str ('int4')",
        ),
        (
            lambda: Offer(device=DEVICE, precisions=()),
            ValueError,
            "Offer: precisions must be a sequence of fp16, int8 or int4, not ()",
        ),
        (
            lambda: Device(backend="a", id="0", kind="NPU", name="x"),
            ValueError,
            "Device: kind must be cpu, gpu, dgpu or npu, not 'NPU'",
        ),
        (
            lambda: Device(backend="a", id="0", kind="cpu", name="x", memory_bytes=cast("Any", 8e9)),
            TypeError,
            "Device: memory_bytes must be an integer from 0, or None, not a float (8000000000.0)",
        ),
        (
            lambda: Device(backend="a", id=cast("Any", 0), kind="cpu", name="x"),
            TypeError,
            "Device: id must be a string that is not empty, not an int (0)",
        ),
        (lambda: Refusal(reason="r", remedy=None), TypeError, "Refusal: remedy must be a string, not None"),
        (
            lambda: Finding(severity="warn", message="m"),
            ValueError,
            "Finding: severity must be info, warning or error, not 'warn'",
        ),
        (
            lambda: Offer(device=DEVICE, precisions=["int4"], layout="Q-4"),
            ValueError,
            "Offer: layout must be lower-case letters and digits, not 'Q-4'",
        ),
    ],
)
def test_what_is_wrong_with_a_value_is_one_sentence(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == words


def test_a_device_is_written_as_backend_and_id():
    assert str(DEVICE) == "acme:GPU.0"
