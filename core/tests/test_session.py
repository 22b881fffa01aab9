"""One answer's attempts, an engine that is closed while it answers, and what only some engines can do."""

from __future__ import annotations

import threading

import phi3_core as phi3
import pytest
from batching import SLOW
from phi3_core.candidates import CandidateQueue
from phi3_core.errors import NoDeviceError, UsageError
from phi3_core.values import Device

GPU = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="flaky", id="0", kind="dgpu", name="Flaky 3000"), precisions=["fp16"])]

@hookimpl
def load(artifact, device, options):
    raise RuntimeError("no memory")
"""


def test_attempts_belong_to_one_answer(plugins, source):
    plugins.add("flaky", changes=GPU)
    plugins.add("parrot")
    with phi3.load(source) as model:
        first, second = model.generate("Hello"), model.generate("Hello")
    assert [attempt.device for attempt in first.attempts] == ["flaky:0", "parrot:CPU"]
    assert [(attempt.device, attempt.outcome) for attempt in second.attempts] == [("parrot:CPU", "answered")]


def test_an_answer_that_is_given_up_leaves_no_attempts_behind(plugins, source):
    plugins.add("flaky", changes=GPU)
    plugins.add("parrot")
    with phi3.load(source) as model:
        with model.stream("Hello world") as stream:
            next(stream)
        assert [attempt.device for attempt in model.generate("Hello").attempts] == ["parrot:CPU"]


def test_a_model_closed_while_it_answers_ends_the_answer_and_loads_no_other_device(plugins, source, caplog):
    plugins.add("slow", changes=SLOW)
    plugins.add("parrot")
    model = phi3.load(source, device="cpu")
    assert model.device == "parrot:CPU"
    model.close()
    model = phi3.load(source, device="slow")
    stream = model.stream("Hello world", max_new_tokens=50)
    next(stream)
    closing = threading.Thread(target=model.close)
    closing.start()
    rest = list(stream)
    closing.join()
    assert len(rest) < 50
    assert model.device == "none"
    assert not [record for record in caplog.records if "continuing" in record.getMessage()]


def test_a_json_schema_is_refused_by_name_where_the_engine_cannot_follow_one(plugins, source):
    plugins.add("parrot")
    with phi3.load(source, device="parrot") as model:
        with pytest.raises(UsageError, match="parrot:CPU cannot follow a JSON schema"):
            model.generate("Hello", json_schema='{"type": "object"}')
        assert model.generate("Hello").text.strip() == "Hello"


def test_a_json_schema_reaches_an_engine_that_follows_one(plugins, source):
    plugins.add(
        "parrot",
        changes="""
        Engine.capabilities = frozenset({"json_schema"})

        @hookimpl
        def generate(engine, request):
            yield from request.prompt_ids[1:2] * len(request.json_schema)
        """,
    )
    with phi3.load(source, device="parrot") as model:
        assert model.generate("Hello", json_schema="{}").completion_tokens == 2


def test_prompt_lookup_is_refused_by_name_where_the_engine_has_none(plugins, source):
    plugins.add("parrot")
    with phi3.load(source, device="parrot") as model:
        with pytest.raises(UsageError, match="parrot:CPU has no prompt lookup"):
            model.generate("Hello", lookup="on")
        with pytest.raises(UsageError, match="lookup.*'maybe'"):
            model.generate("Hello", lookup="maybe")
        assert model.generate("Hello", lookup="auto").text == model.generate("Hello", lookup="off").text


def test_an_answer_with_prompt_lookup_goes_on_without_it_on_another_device(plugins, source, caplog):
    plugins.add(
        "looking",
        changes="""
        Engine.capabilities = frozenset({"lookup"})

        @hookimpl
        def generate(engine, request):
            assert request.lookup == "on"
            yield request.prompt_ids[1]
            raise RuntimeError("broken")
        """,
    )
    plugins.add("parrot")
    with phi3.load(source, device="auto") as model:
        if model.device != "looking:CPU":
            pytest.fail(f"the test starts on {model.device}")
        reply = model.generate("Hello", lookup="on")
    assert reply.device == "parrot:CPU"
    assert "parrot:CPU has no prompt lookup: the answer goes on without it" in caplog.text


def test_a_queue_without_candidates_is_an_error_with_a_hint():
    with pytest.raises(NoDeviceError, match="no device is left"):
        CandidateQueue(()).first(lambda candidate: candidate)


def test_a_failure_names_its_device_once():
    queue, device = CandidateQueue(()), Device(backend="x", id="0", kind="cpu", name="X")
    error = phi3.BackendError("it broke")
    assert queue.record_failure(queue.record_failure(error, device), device).message == "x:0: it broke"
    assert [attempt.outcome for attempt in queue.attempts] == ["x:0: it broke"] * 2
