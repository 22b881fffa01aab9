"""Many threads and tasks at one model: turns in the order of arrival, taken by who reads."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import threading
import time
from functools import partial

import phi3_core as phi3
import pytest
from batching import SLOW, wait_until
from phi3_core import turns
from phi3_core.errors import UsageError

HEARD = "Hello world"
COUNT = min(32, (os.cpu_count() or 1) + 4) + 3  # three more than asyncio.to_thread has threads


@pytest.fixture
def model(shared_parrot):
    return shared_parrot


@pytest.fixture
def slow(plugins, source):
    plugins.add("slow", changes=SLOW)
    with phi3.load(source, device="slow") as loaded:
        yield loaded


def in_thread(call, *arguments):
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


async def collect(stream):
    return "".join([chunk async for chunk in stream])


def test_more_tasks_than_threads(model):
    async def ask() -> list[str]:
        return await asyncio.gather(*(collect(model.astream("Hello world")) for _ in range(COUNT)))

    assert [text.strip() for text in asyncio.run(ask())] == [HEARD] * COUNT


def test_waiting_tasks_have_no_threads(slow):
    async def ask() -> int:
        tasks = [asyncio.create_task(collect(slow.astream("Hello world", max_new_tokens=20))) for _ in range(COUNT)]
        await asyncio.sleep(0.3)
        names = [thread.name for thread in {*threading.enumerate()} - before]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return sum(name.startswith("phi3-stream") for name in names)

    before = {*threading.enumerate()}
    assert asyncio.run(ask()) <= 2


def test_a_task_is_answered_while_asyncios_threads_wait(model):
    """Threads of asyncio's own, that wait for their turns, do not keep the answer that has its turn from going on."""

    async def ask() -> list[str]:
        stream = model.astream("Hello world")
        begun = await anext(stream)
        waiting = [asyncio.create_task(asyncio.to_thread(model.generate, "Hello world")) for _ in range(COUNT)]
        await asyncio.sleep(0.3)
        rest = await collect(stream)
        return [begun + rest, *(reply.text for reply in await asyncio.gather(*waiting))]

    assert [text.strip() for text in asyncio.run(ask())] == [HEARD] * (COUNT + 1)


def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue(model):
    async def ask() -> tuple[str, str]:
        first = model.astream("Hello world")
        begun = await anext(first)
        given_up, last = (asyncio.create_task(collect(model.astream("Hello world"))) for _ in range(2))
        await asyncio.sleep(0.2)
        given_up.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await given_up
        return begun + await collect(first), await last

    assert [text.strip() for text in asyncio.run(ask())] == [HEARD] * 2


def test_streams_made_by_one_thread_are_read_by_others(model):
    """Web frameworks make the stream in the event loop's thread, and read each chunk in any thread of a pool."""
    texts = {}

    def read(name, stream):
        texts[name] = "".join(stream)

    streams = {name: model.stream("Hello world") for name in "abc"}
    threads = [in_thread(read, name, stream) for name, stream in streams.items()]
    for thread in threads:
        thread.join(30)
    assert {name: text.strip() for name, text in texts.items()} == dict.fromkeys("abc", HEARD)


def test_chunks_may_be_read_by_different_threads(model):
    """The thread that has read the first chunk waits for another answer, while others read on."""
    first, second = model.stream("Hello world"), model.stream("Hello world")
    chunks, answers = [], []

    def pool_thread():
        chunks.append(next(first))
        answers.append("".join(second))

    thread = in_thread(pool_thread)
    wait_until(lambda: chunks)
    time.sleep(0.5)
    chunks.extend(first)
    thread.join(30)
    assert "".join(chunks).strip() == HEARD
    assert answers[0].strip() == HEARD


def test_a_thread_does_not_wait_for_itself(model, monkeypatch):
    monkeypatch.setattr(turns, "_IDLE_S", 1.0)
    errors = []

    def wait_for_oneself():
        stream = model.stream("Hello world")
        next(stream)
        try:
            model.generate("Hello")
        except UsageError as error:
            errors.append(error)
        stream.close()

    in_thread(wait_for_oneself).join(30)
    assert "still being streamed" in str(errors[0])
    assert model.generate("Hello").text.strip() == "Hello"


def test_turns_are_taken_in_the_order_in_which_streams_are_read(slow):
    order, turns = [], slow._session.turns

    def has_joined(turn):
        return turn.granted.done() or turn in turns._waiting

    def read(name, stream):
        for _ in stream:
            if name not in order:
                order.append(name)

    streams = {name: slow.stream("Hello world", max_new_tokens=10) for name in "edcba"}
    threads = []
    for name in "abcde":
        threads.append(in_thread(read, name, streams[name]))
        wait_until(partial(has_joined, streams[name].turn))
    for thread in threads:
        thread.join(30)
    assert order == list("abcde")


def test_a_stream_is_closed_by_another_thread(slow):
    chunks: list[str] = []
    waiting: list[str] = []
    first, second = slow.stream("Hello world", max_new_tokens=50), slow.stream("Hello world", max_new_tokens=50)
    threads = [in_thread(chunks.extend, first)]
    wait_until(first.turn.granted.done)
    threads.append(in_thread(waiting.extend, second))
    wait_until(lambda: second.turn.reader)
    second.close()
    threads[1].join(10)
    assert not threads[1].is_alive()
    first.close()
    threads[0].join(10)
    assert not threads[0].is_alive()
    assert (len(chunks) < 50, waiting) == (True, [])
    assert slow.generate("Hello", max_new_tokens=2).completion_tokens == 2


def test_two_threads_may_read_one_stream(model):
    stream = model.stream("Hello world")
    chunks: list[str] = []
    threads = [in_thread(chunks.extend, stream) for _ in range(2)]
    for thread in threads:
        thread.join(30)
    assert "".join(chunks).strip() == HEARD


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks with threads
def test_a_forked_process_is_told_so(slow):
    """It must neither hang on a lock nor talk to the other's worker, nor end it."""
    begun, thread_texts = threading.Event(), []

    def stream():
        for chunk in slow.stream("Hello world", max_new_tokens=30):
            thread_texts.append(chunk)
            begun.set()

    thread = in_thread(stream)
    begun.wait(10)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            slow.generate("Hello")
        except UsageError as error:
            os.write(writer, str(error).encode())
        finally:
            slow.close()
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as said:
        assert "forked" in said.read()
    os.waitpid(child, 0)
    thread.join(10)
    assert slow.generate("Hello", max_new_tokens=2).completion_tokens == 2


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks with threads
def test_a_forked_process_that_goes_on_with_a_stream_is_told_so(slow):
    stream = slow.stream("Hello world", max_new_tokens=30)
    next(stream)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            list(stream)
        except UsageError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as said:
        assert "forked" in said.read()
    os.waitpid(child, 0)
    list(stream)
    assert stream.reply.completion_tokens == 30


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 warns of forks with threads
def test_a_forked_process_that_closes_a_stream_leaves_the_answer_to_the_other(slow):
    stream = slow.stream("Hello world", max_new_tokens=30)
    next(stream)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            stream.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert time.monotonic() - begun < 5  # nothing is waited for
    list(stream)
    assert stream.reply.completion_tokens == 30
