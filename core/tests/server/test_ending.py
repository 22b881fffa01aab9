"""A server that is stopped finishes what runs and refuses the rest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from batching import wait_until
from serving_toy import DIES, SLOW, Running, chat, events, running

PLACES = 2


@contextlib.contextmanager
def busy(server, tokens):
    """Streams in all places, read by threads, and one answer that waits."""
    ends, waiting = [], []

    def read(response):
        *_, last = events(response)
        ends.append(last)

    def wait():
        waiting.append(server.chat())

    threads = []
    for _ in range(PLACES):
        response = server.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=tokens))
        next(events(response))
        threads.append(threading.Thread(target=read, args=(response,), daemon=True))
    threads.append(threading.Thread(target=wait, daemon=True))
    for thread in threads:
        thread.start()
    wait_until(lambda: server.models()[0]["waiting"] == 1)
    yield ends, waiting
    for thread in threads:
        thread.join(30)


def test_what_runs_is_finished_and_the_rest_refused(place):
    with running(str(place / "tiny"), place / "log", max_waiting=2) as server:
        with busy(server, SLOW) as (ends, waiting):
            server.server.end()
            status, answer = server.chat()
            assert (status, answer["error"]["code"]) == (503, "stopping")
            status, found = server.ask("GET", "/health")
            assert (status, found["status"]) == (503, "stopping")
            assert ends == []
        assert [end["choices"][0]["finish_reason"] for end in ends] == ["length"] * PLACES
        [(status, answer)] = waiting
        assert (status, answer["error"]["code"]) == (503, "stopping")


def test_what_takes_longer_than_the_grace_is_cut_off_with_an_error(place):
    with running(str(place / "tiny"), place / "log", grace_s=0.2) as server, busy(server, 2000) as (ends, _):
        started = time.monotonic()
        server.server.end()
        wait_until(lambda: len(ends) == PLACES)
        assert time.monotonic() - started < 10
        assert {end["error"]["code"] for end in ends} == {"stopping"}


def test_a_device_that_is_being_started_again_does_not_hold_the_end_up(place):
    shutil.copytree(place / "tiny", place / "tired")
    with running(str(place / "tired"), place / "log", grace_s=0.2) as server:
        body = chat(model="tired", stream=True, max_tokens=DIES)
        found = events(server.send("POST", "/v1/chat/completions", body))
        next(found)
        wait_until(lambda: sum("tired" in note for note in server.notes("load")) == 2)
        started = time.monotonic()
        server.server.end()
        *_, last = found
        assert last["error"]["code"] == "stopping"
        assert time.monotonic() - started < 10


def test_a_second_signal_does_not_wait(place):
    with running(str(place / "tiny"), place / "log", grace_s=60) as server, busy(server, 2000) as (ends, _):
        server.server.end()
        server.server.end()
        wait_until(lambda: len(ends) == PLACES, 5)


def test_a_signal_ends_the_command_in_order(place):
    """The signal is Ctrl-Break on Windows, and elsewhere the one of service managers.

    A model that is being loaded meanwhile does not hold the end up.
    """
    loads: list[tuple[int, object]] = []
    flags, sent = 0, signal.SIGTERM
    if sys.platform == "win32":
        import ctypes

        if not ctypes.windll.kernel32.GetConsoleCP():
            pytest.skip("without a console there is no Ctrl-Break")
        flags, sent = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
    shutil.copytree(place / "tiny", place / "sluggish")
    models = ("--model", str(place / "tiny"), "--model", str(place / "sluggish"))
    command = [sys.executable, "-m", "phi3_core", "serve", *models, "--no-check"]
    environment = {**os.environ, "PHI3_HOME": str(place / "home"), "PYTHONPATH": str(place / "site")}
    with subprocess.Popen(
        [*command, "--device", "chorus", "--port", "0", "--grace", "2s"],
        env=environment, stderr=subprocess.PIPE, text=True, creationflags=flags,
    ) as process:  # fmt: skip
        try:
            for line in process.stderr:
                if "answers at http://127.0.0.1:" in line:
                    break
            port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
            server = Running(None, port, place / "log")
            wait_until(lambda: reaches(server))
            loading = threading.Thread(target=lambda: loads.append(server.chat(model="sluggish")), daemon=True)
            loading.start()
            wait_until(lambda: any("sluggish" in note for note in server.notes("load")))
            children = psutil.Process(process.pid).children(recursive=True)
            with busy(server, SLOW) as (ends, waiting):
                process.send_signal(sent)
            assert process.wait(30) == 0  # a minute before the other model would have been loaded
            loading.join(30)
            assert [status for status, _ in loads] == [503]
            assert [end["choices"][0]["finish_reason"] for end in ends] == ["length"] * PLACES
            assert [status for status, _ in waiting] == [503]
            assert children
            gone, left = psutil.wait_procs(children, timeout=10)
            assert (len(gone), left) == (len(children), [])
        finally:
            process.kill()


def reaches(server):
    try:
        return server.ask("GET", "/health")[0] == 200
    except ConnectionError:
        return False
