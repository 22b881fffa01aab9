"""The only device fails in the middle of answers: it is started again, and they go on from their ids."""

from __future__ import annotations

import threading
from pathlib import Path

import phi3_core as phi3
import psutil
import pytest
from batching import wait_until
from injected_faults.surfaces import warnings_of_core
from phi3_core.answers import MOST_RESTARTS
from phi3_core.errors import BackendError
from phi3_core.figures import failures
from serving_toy import chat, running

COUNTING = """
import os, signal, time
from pathlib import Path
PLACE = Path(__file__).parent
Engine.max_concurrency, Engine.context_length = 8, 4096

def once(name):
    try:
        (PLACE / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

@hookimpl
def load(artifact, device, options):
    with (PLACE / "loaded").open("a") as file:
        file.write("x")
    return Engine()

@hookimpl
def generate(engine, request):
    for count in range(request.max_new_tokens):
        time.sleep(0.002)
        {fault}
        yield 325 + len(request.prompt_ids + (0,) * count) % 26
"""
"""A backend whose tokens are letters, by the number of tokens before; each loading adds a letter to a file."""
DIES = "os.kill(os.getpid(), 9)"


@pytest.fixture
def only(plugins):
    """Install the only backend, with a fault before each token or at the end; tells how often its engine was loaded."""

    def add(fault="", *, end="", more=""):
        plugins.add("only", changes=COUNTING.replace("{fault}", fault) + f"    {end}\n{more}")
        return lambda: len((plugins.site / "loaded").read_text(encoding="utf-8"))

    return add


def warnings(caplog):
    return [text for each in caplog.records if (text := each.getMessage()).startswith("only:CPU")]


@pytest.mark.parametrize("device", ["auto", "only:CPU"])
def test_a_worker_that_is_killed_from_outside_costs_a_sentence(only, source, caplog, device):
    loaded = only()
    with phi3.load(source, device=device) as model:
        right = model.generate("Hello world", max_new_tokens=300)
        with model.stream("Hello world", max_new_tokens=300) as stream:
            next(stream)
            psutil.Process(model.process).kill()
            text = "".join(stream)
        assert right.text.endswith(text)
        assert stream.reply.completion_tokens == 300
        assert [each.device for each in stream.reply.attempts] == ["only:CPU", "only:CPU"]
        assert "its process died during generate" in stream.reply.attempts[0].outcome
    (said,) = warnings(caplog)
    assert said.startswith("only:CPU: its process died during generate (")
    assert said.endswith("; starting only:CPU again")
    assert loaded() == 2


def test_a_device_that_dies_twice_at_one_place_is_not_started_a_third_time(only, source, caplog):
    loaded = only(f"if len(request.prompt_ids) + count == 40: {DIES}")
    with phi3.load(source) as model, pytest.raises(BackendError, match="died during generate") as caught:
        model.generate("Hello world")
    assert caught.value.exit_code == 5
    assert len(warnings(caplog)) == 1
    assert loaded() == 2


def test_a_device_that_dies_again_and_again_is_started_so_many_times(only, source, caplog):
    loaded = only(f"if count == 5: {DIES}")
    with phi3.load(source) as model:
        with pytest.raises(BackendError, match="died during generate"):
            model.generate("Hello world", max_new_tokens=100)
        assert len(warnings(caplog)) == MOST_RESTARTS
        # The next answer has its own.
        assert model.generate("Hello world", max_new_tokens=5 * MOST_RESTARTS).completion_tokens == 5 * MOST_RESTARTS
    assert loaded() == 1 + MOST_RESTARTS + MOST_RESTARTS


def test_a_device_that_cannot_be_loaded_again_ends_the_answers_with_the_reason(only, source, caplog):
    cannot = """
@hookimpl
def load(artifact, device, options):
    if not once("whole"):
        (PLACE / "tried").open("a").write("x")
        raise RuntimeError("the driver is gone")
    return Engine()
"""
    only(f"if count == 20: time.sleep(0.2); {DIES}", more=cannot)
    with phi3.load(source) as model:
        streams = [model.stream("Hello world") for _ in range(2)]
        for stream in streams:
            next(stream)
        errors = []
        for stream in streams:
            with pytest.raises(BackendError) as caught:
                list(stream)
            errors.append(caught.value.message)
    assert errors[0] == "only:CPU: RuntimeError: the driver is gone"
    assert errors[1].startswith("only:CPU: its process died during generate")
    assert len(warnings(caplog)) == 1  # and one try for both


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_model_that_is_closed_while_its_device_is_started_again_leaves_no_process(only, plugins, source, end):
    slow = """
@hookimpl
def load(artifact, device, options):
    if not once("whole"):
        (PLACE / "again").touch()
        time.sleep(1)
    return Engine()
"""
    only(more=slow)
    model = phi3.load(source)
    stream = model.stream("Hello world", max_new_tokens=4000)
    next(stream)
    psutil.Process(model.process).kill()
    errors = []

    def read():
        with pytest.raises(phi3.UsageError, match="the model is closed") as caught:
            list(stream)
        errors.append(caught.value)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until((plugins.site / "again").exists)
    getattr(model._session, end)()
    reader.join(30)
    assert len(errors) == 1
    assert model.process is None
    assert not psutil.Process().children()


def test_a_device_that_failed_is_put_last_although_it_was_started_again(only, source):
    only(f"if count == 20 and once('died'): {DIES}")
    with phi3.load(source) as model:
        model.generate("Hello world", max_new_tokens=100)
        assert failures.is_noted("only:CPU")
        model.generate("Hello world", max_new_tokens=100)
        wait_until(lambda: not failures.is_noted("only:CPU"))  # it works again


def test_figures_are_of_answers_that_one_engine_has_given(only, source, home):
    only(f"if count == 20 and once('died'): {DIES}")
    with phi3.load(source) as model:
        model.generate("Hello world", max_new_tokens=100)
    assert not list((home / "figures").rglob("*.json"))
    with phi3.load(source) as model:
        model.generate("Hello world", max_new_tokens=100)
    assert list((home / "figures").rglob("*.json"))


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("yield 325", "generate of phi3-only 1.0 yielded more than the 20 ids asked for"),
        ("raise OSError('device lost')", "OSError: device lost"),
        (DIES, "its process died during generate"),
    ],
)
def test_what_an_engine_does_after_a_complete_answer_costs_a_sentence(only, plugins, source, caplog, end, said):
    only(end=end)
    plugins.add("spare")
    with phi3.load(source, device="cpu") as model:
        assert model.device == "only:CPU"
        reply = model.generate("Hello world", max_new_tokens=20)
        assert (reply.completion_tokens, reply.device, reply.finish_reason) == (20, "only:CPU", "length")
        assert [each.outcome for each in reply.attempts] == ["answered"]
        (text,) = warnings(caplog)
        assert text.startswith(f"only:CPU: {said}")
        assert "continuing" not in text
        assert model.generate("Hello world", max_new_tokens=20).text == reply.text


def test_a_stop_id_that_is_yielded_ends_the_answer(only, plugins, source, caplog):
    loaded = only("if count == 7: yield request.stop_ids[0]")
    plugins.add("spare")
    with phi3.load(source, device="cpu") as model:
        reply = model.generate("Hello world", max_new_tokens=20)
        assert (reply.completion_tokens, reply.device, reply.finish_reason) == (7, "only:CPU", "stop")
        model.generate("Hello world", max_new_tokens=20)
    assert "yielded the stop id" in warnings(caplog)[0]
    assert loaded() == 1


def test_a_new_answer_that_starts_the_device_again_leaves_the_sentence_to_those_before(only, source, caplog):
    loaded = only()
    with phi3.load(source) as model:
        stream = model.stream("Hello world", max_new_tokens=300)
        next(stream)
        process = psutil.Process(model.process)
        process.kill()
        process.wait(10)
        wait_until(lambda: not model._session.engine.worker.alive)  # so that the new answer finds it dead
        assert model.generate("Hello", max_new_tokens=3).completion_tokens == 3
        list(stream)
        assert stream.reply.completion_tokens == 300
        assert failures.is_noted("only:CPU")  # only after the new engine had answered
        assert model.generate("Hello", max_new_tokens=3).completion_tokens == 3
        wait_until(lambda: not failures.is_noted("only:CPU"))
    assert len(warnings(caplog)) == 1
    assert loaded() == 2


def test_the_streams_of_eight_clients_go_on(only, source):
    pytest.importorskip("fastapi")
    loaded = only(f"if count == 50 and once('died'): time.sleep(0.3); {DIES}")
    with warnings_of_core() as said, running(source, Path(), device="only", max_waiting=8) as server:
        body = chat("Hello world", max_tokens=150)
        streams = [server.stream("/v1/chat/completions", body) for _ in range(8)]
        texts = ["" for _ in streams]
        for stream in streams:
            next(stream)
        for number, stream in enumerate(streams):
            for document in stream:
                assert "error" not in document
                for choice in document["choices"]:
                    texts[number] += choice["delta"].get("content") or ""
    assert len(set(texts)) == 1
    assert len(texts[0]) == 150
    assert len(said) == 1
    assert loaded() == 2
