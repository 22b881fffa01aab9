"""Several answers at once from one worker: none costs another one anything."""

from __future__ import annotations

import threading
import time

import pytest
from batching import DIES, HANGS, IGNORES_CLOSE, RAISES, STEADY, choir, wait_until
from phi3_core.errors import BackendDiedError, BackendError
from phi3_core.plugin import installed
from phi3_core.values import GenerationRequest
from phi3_core.worker.host import Worker


@pytest.fixture
def make_worker(plugins, tmp_path):
    workers = []

    def make(**changes):
        plugins.add("choir", changes=choir("choir", tmp_path / "loaded", **changes))
        (backend,) = installed()[0]
        worker = Worker().open(backend)
        workers.append(worker)
        device = {"backend": "choir", "id": "CPU", "kind": "cpu", "name": "x"}
        artifact = {"path": str(tmp_path), "backend": "choir", "precision": "fp16"}
        worker.call("load", limit_s=30.0, artifact=artifact, device=device, options={}, purpose="conversation")
        return worker

    yield make
    for worker in workers:
        worker.kill()


def request(how, start, count):
    return GenerationRequest(prompt_ids=[how, start], max_new_tokens=count)


class Reader(threading.Thread):
    """Reads one answer: its ids, and its error if it ends with one."""

    def __init__(self, worker, *asked):
        super().__init__(daemon=True)
        self.generation = worker.start(request(*asked))
        self.ids, self.error = [], None
        self.start()

    def run(self):
        try:
            self.ids.extend(self.generation.ids())
        except BackendError as error:
            self.error = error

    def result(self):
        self.join(30)
        assert not self.is_alive()
        return self.ids, self.error


def counted(start, count):
    return list(range(start + 1, start + count + 1)), None


def test_answers_are_generated_side_by_side_and_no_more_than_the_engine_takes(make_worker):
    worker = make_worker(most=3)
    readers = [Reader(worker, STEADY, 100 * number, 20 + number) for number in range(8)]
    assert [reader.result() for reader in readers] == [counted(100 * number, 20 + number) for number in range(8)]
    assert worker.last_lines[-1] == "peak 3"


def test_an_engine_that_takes_one_generates_in_the_order_of_arrival(make_worker):
    worker = make_worker(most=1, pace=0.001)
    ends = []
    readers = [Reader(worker, STEADY, 100 * number, 5) for number in range(4)]
    for reader in readers:
        reader.generation.at_end(lambda reader=reader: ends.append(readers.index(reader)))
    assert [reader.result() for reader in readers] == [counted(100 * number, 5) for number in range(4)]
    assert list(dict.fromkeys(ends)) == [0, 1, 2, 3]
    assert worker.last_lines == ("peak 1",)


def test_an_answer_that_raises_costs_the_others_nothing(make_worker):
    worker = make_worker()
    readers = [Reader(worker, how, 100, 30) for how in (STEADY, RAISES, STEADY)]
    assert readers[0].result() == readers[2].result() == counted(100, 30)
    ids, error = readers[1].result()
    assert ids == [101, 102]
    assert "lost the device" in str(error)
    assert worker.alive


def test_an_answer_that_hangs_costs_the_others_nothing(make_worker, monkeypatch):
    monkeypatch.setenv("PHI3_TOKEN_LIMIT", "2")
    worker = make_worker()
    hanging, steady = Reader(worker, HANGS, 100, 30), Reader(worker, STEADY, 100, 400)
    ids, error = hanging.result()
    assert ids == [101, 102]
    assert "did not answer 'generate' within 2 s" in str(error)
    assert steady.is_alive()
    assert steady.result() == counted(100, 400)
    # Nobody waits for the process any more, and one of its threads is lost.
    wait_until(lambda: not worker.alive)


def test_an_answer_that_ignores_its_close_costs_the_others_nothing(make_worker):
    worker = make_worker(most=2)
    deaf, steady = worker.start(request(IGNORES_CLOSE, 100, 4000)), Reader(worker, STEADY, 100, 400)
    ids = deaf.ids()
    assert next(ids) == 101
    left = []
    deaf.at_end(lambda: left.append(True))
    begun = time.monotonic()
    ids.close()
    assert time.monotonic() - begun < 10
    assert steady.is_alive()
    assert left == []  # its place in the worker is taken
    assert steady.result() == counted(100, 400)
    wait_until(lambda: not worker.alive)
    wait_until(lambda: left)


def test_an_answer_that_is_closed_makes_room_for_the_next(make_worker):
    worker = make_worker(most=2)
    first, second = (worker.start(request(STEADY, 100, 4000)).ids() for _ in range(2))
    assert (next(first), next(second)) == (101, 101)
    waiting = Reader(worker, STEADY, 500, 3)
    time.sleep(0.3)
    assert waiting.ids == []
    first.close()
    assert waiting.result() == counted(500, 3)
    assert next(second) == 102
    second.close()
    assert worker.alive


def test_an_answer_that_waits_in_the_worker_can_be_closed(make_worker):
    worker = make_worker(most=2)
    running = [worker.start(request(STEADY, 100, 50)) for _ in range(2)]
    waiting = worker.start(request(STEADY, 100, 50))
    closing = threading.Thread(target=waiting.close)
    closing.start()
    assert [list(generation.ids()) for generation in running] == [counted(100, 50)[0]] * 2
    closing.join(30)
    assert list(worker.start(request(STEADY, 7, 2)).ids()) == [8, 9]


def test_every_answer_learns_that_the_process_died(make_worker):
    worker = make_worker(most=8)
    readers = [Reader(worker, STEADY, 100, 4000) for _ in range(7)]
    wait_until(lambda: all(reader.ids for reader in readers))
    readers.append(Reader(worker, DIES, 100, 4000))
    for reader in readers:
        ids, error = reader.result()
        assert ids == counted(100, len(ids))[0]
        assert isinstance(error, BackendDiedError)
        assert "its process died during generate (exit code 9)" in str(error)
    assert not worker.alive
    with pytest.raises(BackendDiedError):
        list(worker.start(request(STEADY, 1, 1)).ids())


def test_a_worker_that_is_retired_finishes_its_answers(make_worker):
    worker = make_worker()
    readers = [Reader(worker, STEADY, 100, count) for count in (20, 60)]
    wait_until(lambda: readers[0].ids)
    worker.retire()
    assert [reader.result() for reader in readers] == [counted(100, 20), counted(100, 60)]
    wait_until(lambda: not worker.alive)


def test_a_worker_without_answers_is_retired_at_once(make_worker):
    worker = make_worker()
    worker.retire()
    assert not worker.alive


def test_a_worker_that_nobody_refers_to_is_ended_with_its_threads(make_worker, plugins):
    before = {thread.name for thread in threading.enumerate()}
    plugins.add("other")
    worker = Worker().open(next(backend for backend in installed()[0] if backend.name == "other"))
    assert worker.hooks
    process = worker._process
    del worker
    wait_until(lambda: process.poll() is not None)
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= before)


@pytest.mark.parametrize("most", [0, "'many'", None])
def test_a_number_of_answers_that_makes_no_sense_is_refused(make_worker, most):
    with pytest.raises(BackendError, match="max_concurrency"):
        make_worker(most=most)
