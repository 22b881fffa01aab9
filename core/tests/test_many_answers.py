"""A model whose engine generates several answers at once, asked by threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import phi3_core as phi3
import psutil
import pytest
from batching import DIES, DIES_OF_IDS, RAISES, STEADY, choir, wait_until
from phi3_core import tasks
from phi3_core.answers import Answer
from phi3_core.errors import Phi3Error, QueueFullError
from phi3_core.replies import GenerationSettings
from phi3_core.turns import Turn
from phi3_core.values import GenerationRequest

SONG = """
import time
Engine.max_concurrency = 4

@hookimpl
def generate(engine, request):
    for _ in range(request.max_new_tokens):
        time.sleep(0.02)
        yield request.prompt_ids[1]
"""
GPU = """
@hookimpl
def detect(machine):
    return [Offer(device=Device(backend="{name}", id="0", kind="dgpu", name="Flaky 3000"), precisions=["fp16"])]
"""


@pytest.fixture
def model(plugins, source):
    plugins.add("song", changes=SONG)
    with phi3.load(source, device="song", max_waiting=2) as loaded:
        yield loaded


def in_threads(call, count):
    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_model_says_how_many_answers_it_generates_at_once(model):
    assert model.max_concurrency == 4


def test_streams_run_side_by_side(model):
    streams = [model.stream("Hello world", max_new_tokens=40) for _ in range(4)]
    assert all(next(stream) for stream in streams)  # one thread reads them in turn
    for stream in streams:
        list(stream)
    assert [stream.reply.completion_tokens for stream in streams] == [40] * 4


def test_one_more_than_may_wait_is_refused_and_the_others_are_answered(model):
    replies, refused = [], []

    def ask(_):
        try:
            replies.append(model.generate("Hello world", max_new_tokens=30))
        except QueueFullError as error:
            refused.append(error)

    threads = in_threads(ask, 7)
    for thread in threads:
        thread.join(60)
    assert len(replies) == 6
    assert str(refused[0]) == "4 answers are being generated, and 2 are waiting already (ask again later)"


def test_nothing_may_wait_where_nothing_is_to_wait(plugins, source):
    plugins.add("song", changes=SONG.replace("= 4", "= 1"))
    with phi3.load(source, device="song", max_waiting=0) as model:
        with model.stream("Hello", max_new_tokens=50) as stream:
            next(stream)
            with pytest.raises(QueueFullError):
                model.generate("Hello")
        assert model.generate("Hello", max_new_tokens=2).completion_tokens == 2


@pytest.mark.parametrize("number", [-1, 1.5, "2"])
def test_a_number_of_waiting_answers_that_makes_no_sense_is_refused(plugins, source, number):
    with pytest.raises(phi3.UsageError, match="max_waiting"):
        phi3.load(source, max_waiting=number)


def test_tasks_run_side_by_side_without_a_thread_for_each(plugins, source):
    plugins.add("song", changes=SONG.replace("= 4", "= 16"))
    with phi3.load(source, device="song") as model:

        async def ask(number: int) -> tuple[int, int]:
            seen = 0
            async for _ in model.astream("Hello world", max_new_tokens=20 + number):
                seen += 1
            return seen, threading.active_count()

        async def ask_all() -> list[tuple[int, int]]:
            return await asyncio.gather(*(ask(number) for number in range(16)))

        before = threading.active_count()
        begun = time.monotonic()
        answers = asyncio.run(ask_all())
        # One after the other would take at least 16 times 0.02 s times 20.
        assert time.monotonic() - begun < 6.4
        assert [seen for seen, _ in answers] == [20 + number for number in range(16)]
        assert max(threads for _, threads in answers) <= before + 2


def test_a_task_that_is_cancelled_frees_its_place(plugins, source):
    plugins.add("song", changes=SONG.replace("= 4", "= 2"))
    with phi3.load(source, device="song") as model:

        async def collect(count: int) -> int:
            return len([chunk async for chunk in model.astream("Hello world", max_new_tokens=count)])

        async def ask() -> int:
            long = [asyncio.create_task(collect(50)) for _ in range(2)]
            await asyncio.sleep(0.2)
            short = asyncio.create_task(collect(3))
            await asyncio.sleep(0.1)
            long[0].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await long[0]
            seen = await short
            assert not long[1].done()
            return seen + await long[1]

        assert asyncio.run(ask()) == 53


def test_tasks_that_break_off_free_their_places(model):
    async def read() -> None:
        async for _ in model.astream("Hello world", max_new_tokens=3000):
            break

    async def ask() -> None:
        await asyncio.gather(*(read() for _ in range(6)))

    for _ in range(3):
        asyncio.run(ask())
        wait_until(lambda: not model.running and not model.waiting)


@pytest.mark.parametrize("stopped_s", [0, 0.3])
def test_tasks_of_an_event_loop_that_is_closed_free_their_places(model, stopped_s):
    async def read() -> None:
        async for _ in model.astream("Hello world", max_new_tokens=3000):
            pass

    loop = asyncio.new_event_loop()
    pending: list[Any] = [loop.create_task(read()) for _ in range(6)]
    loop.run_until_complete(asyncio.sleep(1))
    assert (model.running, model.waiting) == (4, 2)
    time.sleep(stopped_s)  # tokens arrive at a loop that does not run, and that wakes nobody any more
    loop.close()
    wait_until(lambda: not model.running and not model.waiting)
    for task in pending:
        task._log_destroy_pending = False  # asyncio would say so
    assert model.generate("Hello", max_new_tokens=5).completion_tokens == 5


@pytest.mark.parametrize("closed", ["kept", "dropped"])
def test_an_answer_that_is_left_open_ends_with_its_loop_in_silence(model, capfd, closed):
    kept = []

    async def begin() -> None:
        chunks = model.astream("Hello world", max_new_tokens=3000)
        await anext(chunks)
        if closed == "kept":
            kept.append(chunks)

    asyncio.run(begin())
    wait_until(lambda: not model.running)
    assert capfd.readouterr().err == ""


def test_a_program_that_ends_while_a_thread_reads_an_answer_says_nothing(plugins, source, home):
    plugins.add("song", changes=SONG)
    plugins.add("other", changes=SONG)
    program = f"""
import threading, time
import phi3_core as phi3

begun = threading.Event()
if __name__ == "__main__":
    model = phi3.load({str(source)!r})

    def read():
        for chunk in model.stream("Hello world", max_new_tokens=3000):
            begun.set()

    threading.Thread(target=read, daemon=True).start()
    begun.wait(30)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    # On Windows, CPython itself may tell of the read that the end of the program breaks off.
    assert not [name for name in ("song", "other", "Traceback") if name in done.stderr], done.stderr
    assert list((home / "failures").rglob("*.json")) == []


def test_a_task_s_answer_is_closed_although_the_interpreter_ends_and_starts_no_more_threads(model):
    settings = GenerationSettings.of({"max_new_tokens": 3000})
    executor = tasks.make_executor()
    chunks = tasks.read(lambda: model.answer([{"role": "user", "content": "Hello world"}], settings), executor)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(anext(chunks))
    executor.shutdown()
    loop.run_until_complete(chunks.aclose())
    loop.close()
    wait_until(lambda: not model.running)


def test_streams_that_are_dropped_closed_twice_or_never_read_free_their_places(model):
    for _ in range(6):
        stream = model.stream("Hello", max_new_tokens=50)
        next(stream)
        del stream
    for _ in range(6):
        stream = model.stream("Hello", max_new_tokens=50)
        next(stream)
        stream.close()
        stream.close()
        assert list(stream) == []
    unread = [model.stream("Hello") for _ in range(6)]
    in_a_cycle = [model.stream("Hello", max_new_tokens=50)]
    next(in_a_cycle[0])
    in_a_cycle.append(in_a_cycle)
    del in_a_cycle
    gc.collect()
    replies = []
    for thread in in_threads(lambda _: replies.append(model.generate("Hello", max_new_tokens=5)), 6):
        thread.join(30)
    assert [reply.completion_tokens for reply in replies] == [5] * 6
    assert len(unread) == 6


# --- failing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(plugins, source, tmp_path):
    """A model on a discrete GPU that can be told to fail, with another backend to go on with."""
    plugins.add("flaky", changes=GPU.replace("{name}", "flaky") + choir("flaky", tmp_path / "loaded", most=8))
    plugins.add("spare", changes=choir("spare", tmp_path / "loaded", most=3, pace=0.001, faults=False))
    with phi3.load(source) as model:
        assert model.device == "flaky:0"
        yield model


class Asking(threading.Thread):
    """Asks the session of a model for ids."""

    def __init__(self, model, how, start, count):
        super().__init__(daemon=True)
        self.session = model._session
        self.request = GenerationRequest(prompt_ids=[how, start], max_new_tokens=count)
        self.answer = Answer(Turn(self.session.turns))
        self.ids, self.error = [], None
        self.start()

    def run(self):
        try:
            for item in self.session.generate(self.request, self.answer):
                if isinstance(item, int):
                    self.ids.append(item)
                elif hasattr(item, "wait"):
                    item.wait(0.2)
        except Phi3Error as error:
            self.error = error

    def end(self):
        self.join(60)
        assert not self.is_alive()
        return self


def devices(answer):
    return [attempt.device for attempt in answer.attempts]


def test_when_the_engine_dies_every_answer_goes_on_and_the_next_is_loaded_once(two, tmp_path, caplog):
    asking = [Asking(two, STEADY, 100 * number, 60) for number in range(7)]
    wait_until(lambda: all(each.ids for each in asking))
    asking.append(Asking(two, DIES, 700, 60))
    for number, each in enumerate(asking):
        assert each.end().ids == list(range(100 * number + 1, 100 * number + 61))
        assert devices(each.answer) == ["flaky:0"]
        assert str(each.answer.engine.device) == "spare:CPU"
    assert Path(tmp_path / "loaded").read_text(encoding="utf-8").split() == ["flaky", "spare"]
    (said,) = [text for record in caplog.records if "; continuing with" in (text := record.getMessage())]
    assert said.startswith("flaky:0: its process died during generate")
    assert two.max_concurrency == 3


def test_an_answer_that_fails_alone_goes_on_elsewhere_and_the_others_stay(two, tmp_path):
    steady = [Asking(two, STEADY, 100 * number, 100) for number in range(3)]
    wait_until(lambda: all(each.ids for each in steady))
    flaky = two._session.engine.worker
    raising = Asking(two, RAISES, 500, 4)
    wait_until(lambda: two.device == "spare:CPU")
    for number, each in enumerate(steady):
        assert each.end().ids == list(range(100 * number + 1, 100 * number + 101))
        assert (str(each.answer.engine.device), devices(each.answer)) == ("flaky:0", [])
    assert raising.end().ids == [501, 502, 503, 504]
    assert devices(raising.answer) == ["flaky:0"]
    wait_until(lambda: not flaky.alive)
    assert Path(tmp_path / "loaded").read_text(encoding="utf-8").split() == ["flaky", "spare"]


def test_when_no_device_is_left_each_answer_fails_with_the_reason(plugins, source, tmp_path):
    plugins.add("choir", changes=choir("choir", tmp_path / "loaded", most=8))
    with phi3.load(source) as model:
        asking = [Asking(model, STEADY, 100, 3000) for _ in range(7)]
        wait_until(lambda: all(each.ids for each in asking))
        asking.append(Asking(model, DIES, 100, 300))
        for each in asking:
            each.end()
            assert "its process died during generate (exit code 9)" in str(each.error)
        # The engine is loaded again for whoever asks next.
        assert Asking(model, STEADY, 100, 3).end().ids == [101, 102, 103]


@pytest.mark.parametrize("start", [704, 690], ids=["its first token", "a later token"])
def test_an_answer_that_kills_the_only_device_costs_the_others_none(plugins, source, tmp_path, start):
    plugins.add("choir", changes=choir("choir", tmp_path / "loaded", most=8))
    with phi3.load(source) as model:
        asking = [Asking(model, STEADY, 1000 * number, 60) for number in range(7)]
        wait_until(lambda: all(each.ids for each in asking))
        asking.append(culprit := Asking(model, DIES_OF_IDS, start, 60))
        later = [Asking(model, STEADY, 1000 * number, 60) for number in range(7, 12)]
        for number, each in enumerate(asking[:7] + later):
            assert each.end().ids == list(range(1000 * number + 1, 1000 * number + 61))
        assert "its process died during generate (exit code 9)" in str(culprit.end().error)
        assert culprit.ids == list(range(start + 1, 705))
        # It dies among others, perhaps once more among those that have gone on before, and then of the answer alone.
        assert len(Path(tmp_path / "loaded").read_text(encoding="utf-8").split()) <= 4
        assert Asking(model, STEADY, 100, 3).end().ids == [101, 102, 103]


def test_three_answers_that_kill_the_only_device_cost_the_others_none(plugins, source, tmp_path):
    plugins.add("choir", changes=choir("choir", tmp_path / "loaded", most=8))
    with phi3.load(source) as model:
        asking = [Asking(model, STEADY, 1000 * number, 60) for number in range(5)]
        wait_until(lambda: all(each.ids for each in asking))
        culprits = [Asking(model, DIES_OF_IDS, start, 60) for start in (104, 95, 80)]
        for number, each in enumerate(asking):
            assert each.end().ids == list(range(1000 * number + 1, 1000 * number + 61))
        for each in culprits:
            assert "its process died during generate (exit code 9)" in str(each.end().error)


def test_an_engine_that_failed_is_forgotten_with_its_answers(two):
    engine = weakref.ref(two._session.engine)
    Asking(two, DIES, 100, 20).end()
    gc.collect()
    assert two.device == "spare:CPU"
    assert engine() is None


def test_a_model_that_is_closed_ends_its_answers(two):
    asking = [Asking(two, STEADY, 100, 4000) for _ in range(10)]
    wait_until(lambda: sum(bool(each.ids) for each in asking) == 8)
    two.close()
    for each in asking[:8]:
        assert each.end().error is None
    for each in asking[8:]:
        assert "the model is closed" in str(each.end().error)


@pytest.mark.slow
def test_five_hundred_answers_leave_nothing_behind(plugins, source):
    plugins.add("song", changes=SONG.replace("= 4", "= 8").replace("0.02", "0.001"))
    process = psutil.Process()
    with phi3.load(source, device="song") as model:
        worker = psutil.Process(model._session.engine.worker._process.pid)

        def ask(number):
            for count in range(50):
                with model.stream("Hello world", max_new_tokens=20) as stream:
                    for _ in range(2 if (number + count) % 10 == 0 else 100):
                        if next(stream, None) is None:
                            break

        def held():
            gc.collect()
            return [(each.num_threads(), each.num_fds(), each.memory_info().rss) for each in (process, worker)]

        for thread in in_threads(ask, 1):
            thread.join(60)
        before = held()
        for thread in in_threads(ask, 10):
            thread.join(120)
        time.sleep(0.5)
        after = held()
    for (threads, handles, memory), (threads_after, handles_after, memory_after) in zip(before, after, strict=True):
        assert threads_after <= threads + 8  # the worker's, one for each answer at once
        assert handles_after <= handles  # before, one may have been open to write the figures
        assert memory_after < memory + 4 * 2**20
