"""A client that goes away frees its place within a token, and a full queue says so."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

from batching import wait_until
from phi3_core.server import serving
from serving_toy import SLOW, chat, events, running

JSON = {"content-type": "application/json"}
LONG = 2000
"""Tokens of an answer that takes twenty seconds."""
PLACES, WAITING = 2, 2
"""How many answers the server generates at once, and lets wait."""


@contextlib.contextmanager
def streaming(server, count, **more):
    """Streams that have begun."""
    responses = []
    for _ in range(count):
        response = server.send("POST", "/v1/chat/completions", chat(stream=True, max_tokens=LONG, **more))
        next(events(response))
        responses.append(response)
    try:
        yield responses
    finally:
        for response in responses:
            response.close()
        wait_until(lambda: server.models()[0]["running"] == 0)


def test_a_stream_that_is_not_read_to_its_end_stops_the_engine(server):
    before = len(server.notes("made"))
    with streaming(server, 1) as [response]:
        read = [next(events(response)) for _ in range(5)]
        response.close()
        wait_until(lambda: len(server.notes("made")) > before)
    assert len(read) == 5
    # What was generated meanwhile: what was read, and what the engine made while the connection was being closed.
    assert server.notes("made")[-1] < 40


def test_an_answer_that_nobody_waits_for_stops_the_engine(server):
    before, begun = len(server.notes("made")), len(server.notes("asked"))
    connection = server.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps(chat(max_tokens=LONG)), JSON)
    wait_until(lambda: len(server.notes("asked")) > begun)
    connection.close()
    wait_until(lambda: len(server.notes("made")) > before)
    assert server.notes("made")[-1] < 40


def test_one_of_several_answers_takes_the_others_with_it(server):
    before, begun = len(server.notes("made")), len(server.notes("asked"))
    with streaming(server, 1, n=2) as [response]:
        wait_until(lambda: len(server.notes("asked")) >= begun + 2)
        response.close()
        wait_until(lambda: len(server.notes("made")) >= before + 2)


def test_a_full_queue_is_a_503_that_says_when_to_ask_again(server):
    with streaming(server, PLACES):
        answers = []
        waiting = [
            threading.Thread(target=lambda: answers.append(server.chat(max_tokens=SLOW)), daemon=True)
            for _ in range(WAITING)
        ]
        for thread in waiting:
            thread.start()
        wait_until(lambda: server.models()[0]["waiting"] == WAITING)
        for stream in (False, True):
            response = server.send("POST", "/v1/chat/completions", chat(stream=stream))
            assert response.status == 503
            assert response.headers["retry-after"] == "1"
            assert b"queue_full" in response.read()
        assert server.ask("GET", "/v1/models")[0] == 200
    for thread in waiting:
        thread.join(30)
    assert [status for status, _ in answers] == [200] * WAITING


def test_one_who_waits_and_goes_away_leaves_the_queue(server):
    with streaming(server, PLACES):
        connection = server.connect()
        connection.request("POST", "/v1/chat/completions", json.dumps(chat()), JSON)
        wait_until(lambda: server.models()[0]["waiting"] == 1)
        connection.close()
        wait_until(lambda: server.models()[0]["waiting"] == 0)


def test_health_is_told_at_once_while_all_places_are_taken(server):
    with streaming(server, PLACES):
        started = time.monotonic()
        status, found = server.ask("GET", "/health")
        assert time.monotonic() - started < 5
        assert (status, found["status"]) == (200, "ok")
        [model] = found["models"]
        assert (model["state"], model["running"]) == ("busy", 2)
        assert model["last_token_age_s"] < 5


def test_a_client_that_reads_nothing_more_is_taken_for_gone(place, monkeypatch):
    """Its connection stays open, and its computer may be asleep: nobody else says that it has gone."""
    listen = serving.listen

    def listen_with_small_buffers(settings):
        found = listen(settings)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # which the connections inherit
        return found

    monkeypatch.setattr(serving, "listen", listen_with_small_buffers)
    monkeypatch.setattr("phi3_core.server.streaming.UNREAD_LIMIT_S", 0.5)
    with running(str(place / "tiny"), place / "log") as server, socket.socket() as connection:
        before = len(server.notes("made"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        body = json.dumps(chat(stream=True, max_tokens=LONG)).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(server.notes("made")) > before)
        wait_until(lambda: server.models()[0]["running"] == 0)
        assert server.notes("made")[-1] < LONG
