"""Figures of real answers go into the store by themselves, and cost no answer anything."""

from __future__ import annotations

import json
import time
from functools import partial

import phi3_core as phi3
import pytest
from batching import paced, wait_until
from phi3_core.figures import failures, recorder, stall
from phi3_core.figures.conditions import LoadedArtifact
from phi3_core.figures.record import read_all
from phi3_core.figures.recorder import Answered, Recorder
from phi3_core.figures.stall import stall_limits
from phi3_core.figures.values import Figures
from phi3_core.plugin import Backend
from phi3_core.values import Artifact, Device
from phi3_core.worker.call import Timing

PACED = paced(first_s=0.2, token_s=0.005)


def test_an_answer_leaves_its_figures(plugins, source):
    plugins.add("paced", changes=PACED)
    with phi3.load(source) as model:
        reply = model.generate("Hello world", max_new_tokens=40)
    (found,) = read_all()
    assert (found.subject.backend, found.subject.device, found.subject.precision) == ("paced", "CPU", "fp16")
    assert found.conditions.version == "phi3-paced 1.0"
    assert found.conditions.content
    ((tokens, seconds),) = found.answers.first_token
    assert tokens == reply.prompt_tokens
    assert 0.2 <= seconds <= reply.time_to_first_token_s + 0.05
    (speed,) = found.answers.decode
    assert speed > 5
    assert time.time() - found.answers.time < 60


def test_a_slow_reader_does_not_slow_the_figures(plugins, source):
    plugins.add("paced", changes=PACED)
    with phi3.load(source) as model, model.stream("Hello world", max_new_tokens=30) as stream:
        next(stream)
        time.sleep(2)
        list(stream)
    (found,) = read_all()
    assert found.answers.decode[0] > 15  # the reader takes 30 tokens in over 2 s


def test_short_answers_repeated_prompts_and_shared_devices_do_not_count(plugins, source):
    plugins.add("paced", changes=PACED + "\nEngine.max_concurrency = 2\n")
    with phi3.load(source) as model:
        model.generate("Hello world", max_new_tokens=4)
        model.generate("Hello world", max_new_tokens=4)
        streams = [model.stream(f"{word} is the capital", max_new_tokens=30) for word in ("Paris", "France")]
        for stream in streams:
            next(stream)
        for stream in streams:
            list(stream)
    (found,) = read_all()
    assert len(found.answers.first_token) == 1
    assert found.answers.decode == ()


def test_options_of_the_user_leave_no_figures(plugins, source):
    plugins.add("paced", changes=PACED)
    with phi3.load(source, options={"MODE": "odd"}) as model:
        model.generate("Hello world", max_new_tokens=20)
    assert list(read_all()) == []


DEVICE = Device(backend="paced", id="CPU", kind="cpu", name="x")
BACKEND = Backend(name="paced", target="paced", distribution="phi3-paced", version="1.0")
ARTIFACT = Artifact(path="m", backend="paced", precision="fp16")
LOADED = LoadedArtifact(backend=BACKEND, device=DEVICE, artifact=ARTIFACT)


def have_answers(count):
    return [len(each.answers.decode) for each in read_all()] == [count]


def test_a_model_that_stays_loaded_writes_now_and_then(home, monkeypatch):
    monkeypatch.setattr(recorder, "WRITE_AFTER_S", 0.0)
    found = Recorder(LOADED, "m", load_s=1.0)
    for number in range(3):
        prompt = range(1000 * number, 1000 * number + 100)
        found.note(Answered(prompt, [1] * 20, Timing(20, 0.5, 1.0), alone=True))
        wait_until(partial(have_answers, number + 1))
    assert next(read_all()).answers.first_token == ((100, 0.5),) * 3


def test_a_store_that_cannot_be_written_costs_nothing(make_disk, make_read_only, monkeypatch):
    folder = make_disk(2**20)
    make_read_only(folder)
    monkeypatch.setenv("PHI3_HOME", str(folder))
    found = Recorder(LOADED, "m", load_s=1.0)
    found.note(Answered(range(100), [1] * 20, Timing(20, 0.5, 1.0), alone=True))
    failures.note(BACKEND, DEVICE, "it broke")
    found.close()
    assert list(folder.iterdir()) == []


def test_an_engine_that_never_answered_leaves_no_figures(home):
    found = Recorder(LOADED, "m", load_s=1.0)
    found.note(Answered([1], [], Timing(0, 0.0, 0.0), alone=True))
    found.close()
    assert list(read_all()) == []


# --- devices that failed ----------------------------------------------------------------------------------------------

DIES = """
import os

@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="dying", id="0", kind="dgpu", name="D", driver="7"), precisions=["fp16"])]

@hookimpl
def generate(engine, request):
    if "healed" not in os.environ.get("PHI3_TEST_STATE", ""):
        os._exit(9)
    yield request.prompt_ids[1]
"""


def rows_of(out):
    return json.loads(out)["candidates"]


@pytest.fixture
def two(plugins):
    plugins.add("dying", changes=DIES)
    plugins.add("parrot")


def test_a_device_that_failed_is_put_last_until_it_works_again(two, source, monkeypatch, run_main):
    with phi3.load(source) as model:
        assert model.generate("Hello").device == "parrot:CPU"
    with phi3.load(source) as model:
        assert model.device == "parrot:CPU"
        assert [attempt.device for attempt in model.generate("Hello").attempts] == ["parrot:CPU"]
    code, out, _ = run_main("devices", "--json")
    rows = rows_of(out)
    assert code == 0
    assert [row["device"] for row in rows] == ["parrot:CPU", "dying:0"]
    assert "its process died during generate" in rows[1]["failure"]["reason"]
    assert "put last for another 60 minutes; it failed just now: its process died" in rows[1]["why"]
    with phi3.load(source, device="dying:0") as model, pytest.raises(phi3.BackendError, match="dying:0"):
        model.generate("Hello")  # a named device is tried, and not replaced
    monkeypatch.setenv("PHI3_TEST_STATE", "healed")
    with phi3.load(source, device="dying:0") as model:
        model.generate("Hello")
    with phi3.load(source) as model:
        assert model.device == "dying:0"


def test_doctor_tries_what_failed_and_clears_it(two, source, monkeypatch, run_main):
    with phi3.load(source) as model:
        model.generate("Hello")
    monkeypatch.setenv("PHI3_TEST_STATE", "healed")
    assert run_main("doctor", "--model", source)[0] == 0
    _, out, _ = run_main("devices", "--json")
    assert [(row["device"], row["failure"]) for row in rows_of(out)] == [("dying:0", None), ("parrot:CPU", None)]


def test_failures_are_forgotten_on_request(two, source, run_main):
    with phi3.load(source) as model:
        model.generate("Hello")
    code, out, err = run_main("devices", "--clear-failures", "--json")
    assert code == 0
    assert "1 failure forgotten" in err
    assert [row["device"] for row in rows_of(out)] == ["dying:0", "parrot:CPU"]


def test_a_device_that_cannot_be_loaded_has_failed_too(plugins, source):
    plugins.add(
        "flaky", changes=DIES.replace("dying", "flaky") + "\n@hookimpl\ndef load(artifact, device):\n    1 / 0\n"
    )
    plugins.add("parrot")
    for _ in range(2):
        with phi3.load(source) as model:
            attempts = [attempt.device for attempt in model.generate("Hello").attempts]
    assert attempts == ["parrot:CPU"]


def test_a_failure_is_not_counted_with_another_driver_or_backend_or_when_it_is_old(home):
    device = Device(backend="b", id="0", kind="gpu", name="x", driver="1")
    backend = Backend(name="b", target="b", distribution="phi3-b", version="1")
    failures.note(backend, device, "b:0: it broke")
    now = time.time()
    assert failures.held_back({"b": backend}, [device], now)["b:0"].reason == "it broke"
    newer = Backend(name="b", target="b", distribution="phi3-b", version="2")
    updated = Device(backend="b", id="0", kind="gpu", name="x", driver="2")
    assert not failures.held_back({"b": newer}, [device], now)
    assert not failures.held_back({"b": backend}, [updated], now)
    assert not failures.held_back({"b": backend}, [device], now + 3601)
    assert not failures.held_back({"b": backend}, [device], now - 3600)  # the clock was wrong
    (file,) = (home / "failures").iterdir()
    file.write_text("{", encoding="utf-8")
    assert not failures.held_back({"b": backend}, [device], now)


# --- stalls -----------------------------------------------------------------------------------------------------------


def test_a_stall_is_measured_by_what_the_device_did_before():
    fast = Figures(precision="int4", first_token_s={128: 0.1}, decode_tokens_per_s=50.0)
    slow = Figures(precision="int4", first_token_s={128: 20.0}, decode_tokens_per_s=0.5)
    assert stall_limits(fast, 128, context_length=512, at_once=1) == (60, 30)
    assert stall_limits(slow, 128, context_length=512, at_once=1) == (400, 200)
    assert stall_limits(slow, 128, context_length=512, at_once=4) == (1600, 200)
    assert stall_limits(slow, 100_000, context_length=512, at_once=1) == (None, 200)
    assert stall_limits(fast, 128, context_length=10**5, at_once=2) == (120, None)
    assert stall_limits(Figures(precision="int4"), 128, context_length=512, at_once=1) == (None, None)


HANGS = """
import time

@hookimpl
def generate(engine, request):
    yield request.prompt_ids[1]
    time.sleep(600)
"""


def test_a_device_that_stalls_is_given_up_sooner_than_the_limit_for_all(plugins, source, monkeypatch):
    monkeypatch.setattr(stall, "_LEAST_TOKEN_S", 1.0)
    known = Figures(precision="fp16", first_token_s={16: 0.1}, decode_tokens_per_s=1000.0)
    monkeypatch.setattr(Recorder, "_figures_before", lambda _: known)
    plugins.add("hanging", changes=HANGS)
    with phi3.load(source, device="hanging:CPU") as model, pytest.raises(phi3.BackendError, match="within 1 s"):
        model.generate("Hello")
    monkeypatch.setenv("PHI3_TOKEN_LIMIT", "2")  # what the user sets holds
    with phi3.load(source, device="hanging:CPU") as model, pytest.raises(phi3.BackendError, match="within 2 s"):
        model.generate("Hello")
