"""Many answers at once through phi3-openvino, as an application asks for them."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import sys
import threading
import time

import phi3_core as phi3
import psutil
import pytest

QUESTIONS = [f"{number}. Tell me something about the number {number}." for number in range(8)]


@pytest.fixture(scope="module")
def model(sample_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="openvino:CPU") as loaded:
            yield loaded


def in_threads(call, count):
    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive()


def test_eight_threads_get_what_each_would_get_alone(model):
    assert model.max_concurrency >= 8
    options = {"max_new_tokens": 40, "temperature": 0.8, "seed": 3}
    alone = [model.generate(question, **options).text for question in QUESTIONS]
    together = [""] * len(QUESTIONS)

    def ask(number):
        together[number] = model.generate(QUESTIONS[number], **options).text

    in_threads(ask, len(QUESTIONS))
    assert together == alone


def test_tasks_are_answered_side_by_side(model):
    async def collect(question: str) -> str:
        return "".join([chunk async for chunk in model.astream(question, max_new_tokens=20)])

    async def ask() -> list[str]:
        return await asyncio.gather(*(collect(question) for question in QUESTIONS))

    assert all(asyncio.run(ask()))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_eight_answers_go_on_when_their_engine_is_killed(sample_store, caplog):
    """All go on behind what they have said, on the next device, which is loaded once."""
    pytest.importorskip("onnxruntime_genai")
    with phi3.load("sample") as model:
        assert model.device == "openvino:CPU"
        replies, begun = {}, threading.Barrier(len(QUESTIONS) + 1)

        def ask(number):
            with model.stream(QUESTIONS[number], max_new_tokens=60) as stream:
                said = [next(stream), next(stream)]
                begun.wait(120)
                said += stream
            replies[number] = ("".join(said), stream.reply)

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(len(QUESTIONS))]
        for thread in threads:
            thread.start()
        begun.wait(120)
        os.kill(model._session.engine.worker._process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(300)
    assert len(replies) == len(QUESTIONS)
    for text, reply in replies.values():
        assert text == reply.text
        if reply.device == "dml:CPU":  # the others had come to their end already
            assert [attempt.device for attempt in reply.attempts] == ["openvino:CPU", "dml:CPU"]
    assert any(reply.device == "dml:CPU" for _, reply in replies.values())
    (said,) = [text for record in caplog.records if "continuing with" in (text := record.getMessage())]
    assert "SIGKILL" in said


@pytest.fixture
def forgetful(sample_home, monkeypatch):
    """The model in an engine without a cache of kernels.

    OpenVINO compiles its linear layers for each number of rows, and keeps thousands: 200 MB in the first 1,500 answers.
    """
    monkeypatch.setenv("PHI3_HOME", str(sample_home))
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    with phi3.load("sample", device="openvino:CPU", options={"CPU_RUNTIME_CACHE_CAPACITY": "0"}) as loaded:
        yield loaded


@pytest.mark.slow
def test_five_hundred_answers_leave_nothing_behind(forgetful):
    """A tenth of them are given up midway. The KV cache takes memory as blocks are used, so they are used first."""
    model = forgetful
    long = "Tell me about the sea and the wind and the light. " * 60
    in_threads(lambda number: model.generate(f"{number} {long}", max_new_tokens=2), 50)
    worker = psutil.Process(model._session.engine.worker._process.pid)
    processes = (psutil.Process(), worker)

    def held():
        gc.collect()
        time.sleep(0.5)
        return [(each.num_threads(), each.num_fds(), each.memory_info().rss) for each in processes]

    def ask(number, counts):
        for count in counts:
            with model.stream(f"{number}.{count}? {QUESTIONS[count % 8]}", max_new_tokens=20) as stream:
                for place, _ in enumerate(stream):
                    if place == 3 and (number + count) % 10 == 0:
                        break

    in_threads(functools.partial(ask, counts=range(3)), 16)
    before = held()
    in_threads(functools.partial(ask, counts=range(3, 35)), 16)
    after = held()
    assert worker.children() == []
    for (threads, handles, memory), (threads_after, handles_after, memory_after) in zip(before, after, strict=True):
        assert threads_after <= threads + 16
        assert handles_after == handles
        assert memory_after - memory < 32 * 2**20
