"""Who may ask: hosts, origins, keys, and sizes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time

import pytest
from batching import wait_until
from phi3_core.errors import UsageError
from phi3_core.server import protocol
from phi3_core.server.keys import read_key
from phi3_core.server.settings import ServerSettings
from serving_toy import SLOW, chat, running

JSON = {"content-type": "application/json"}
KEY = "correct-horse-battery"


@pytest.fixture(scope="package")
def locked(place):
    """A server with a key, and a page elsewhere that may ask it."""
    with running(
        str(place / "tiny"),
        place / "log",
        api_key=KEY,
        allowed_origins=("http://localhost:3000",),
        allowed_hosts=("box.example",),
        max_body_bytes=10_000,
    ) as found:
        yield found


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"])
def test_the_servers_own_names_are_served(server, host):
    assert server.ask("GET", "/v1/models", host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:8000", "", "a@localhost", "localhost/", "localhost:x"],
)
def test_another_name_is_refused(server, host):
    """As when a page's domain is made to mean this machine."""
    status, answer = server.ask("GET", "/v1/models", host=host)
    assert (status, answer["error"]["code"]) == (403, "host")


def test_another_name_is_served_if_it_is_allowed(locked):
    assert locked.ask("GET", "/health", host="box.example:80")[0] == 200


def test_the_servers_own_page_may_ask(server):
    own = f"http://127.0.0.1:{server.port}"
    response = server.send("GET", "/v1/models", origin=own, sec_fetch_site="same-origin")
    assert response.status == 200
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:1", ""])
def test_other_pages_may_not_ask(server, origin):
    before = len(server.notes("asked"))
    for method, path, body in (("GET", "/v1/models", None), ("POST", "/v1/chat/completions", chat())):
        response = server.send(method, path, body, origin=origin)
        assert response.status == 403
        assert "access-control-allow-origin" not in response.headers
    assert len(server.notes("asked")) == before


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_of_another_page_without_an_origin_is_refused(server, site):
    assert server.ask("GET", "/v1/models", sec_fetch_site=site, sec_fetch_mode="no-cors")[0] == 403


def test_a_page_that_is_allowed_is_answered_by_cors(locked):
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization, x-stainless-os"}
    response = locked.send("OPTIONS", "/v1/chat/completions", origin="http://localhost:3000", **asked)
    assert response.status == 204
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "authorization" in response.headers["access-control-allow-headers"]
    response = locked.send("GET", "/v1/models", origin="http://localhost:3000", authorization=f"Bearer {KEY}")
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert response.headers["vary"] == "Origin"
    assert locked.send("OPTIONS", "/v1/models", origin="http://evil.example", **asked).status == 403


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x_api_key": KEY}])
def test_the_key_opens(locked, headers):
    assert locked.ask("GET", "/v1/models", **headers)[0] == 200


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY}, {"x_api_key": f"{KEY}x"}]
)
def test_without_the_key_nothing_opens(locked, headers):
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
        response = locked.send("GET", path, **headers)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
    assert locked.ask("GET", "/health", **headers)[0] == 200


def test_large_bodies_are_refused_before_they_are_read(locked):
    large = chat("a" * 10_001)
    status, answer = locked.ask("POST", "/v1/chat/completions", large, authorization=f"Bearer {KEY}")
    assert (status, answer["error"]["code"]) == (413, "body_too_large")


def test_large_bodies_without_a_length_are_refused_too(locked):
    with socket.create_connection(("127.0.0.1", locked.port), timeout=20) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(11):
            connection.sendall(b"400\r\n" + b"a" * 0x400 + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_compressed_bodies_are_refused_by_name(server):
    status, answer = server.ask("POST", "/v1/chat/completions", chat(), content_encoding="gzip")
    assert (status, answer["error"]["code"]) == (415, "encoding")


def test_a_body_with_two_lengths_is_refused_and_nothing_after_it_is_read(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head + b"\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with connection.makefile("rb") as reading:
            found = reading.read()  # to the end of the connection
    assert found.startswith(b"HTTP/1.1 400 ")
    assert found.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nX\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    ],
    ids=range(8),
)
def test_what_is_no_http_ends_its_connection_only(server, data):
    found = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection,
        contextlib.suppress(ConnectionError, BrokenPipeError),  # it may be closed before all has been sent
    ):
        connection.sendall(data)
        found = connection.recv(1000)
    assert b" 500 " not in found
    assert server.ask("GET", "/v1/models")[0] == 200


def test_clients_that_send_slowly_keep_nobody_waiting(server):
    slow = []
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        slow.append(connection)
    started = time.monotonic()
    assert server.chat()[0] == 200
    assert time.monotonic() - started < 5
    for connection in slow:
        connection.close()


@pytest.mark.parametrize(
    "begun", [b"", b"GET /v1/models HTTP/1.1\r\nX: ", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/m"]
)
def test_a_connection_without_a_whole_request_is_closed(server, monkeypatch, begun):
    monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 0.5)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(begun)
        if begun.endswith(b"/v1/m"):  # whose first request is answered
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"o")
        while connection.recv(4096):
            pass  # up to its end


def test_the_time_for_a_request_is_none_for_its_answer_or_between_two(server, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 0.2)
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(max_tokens=SLOW)).encode(), JSON)
        own = connection.sock
        assert connection.getresponse().read()
        time.sleep(0.5)
        assert connection.sock is own
    connection.close()


def test_a_client_that_goes_in_the_middle_of_a_body_is_no_error(server, caplog):
    caplog.set_level("INFO", logger="phi3_core")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
        assert server.ask("GET", "/v1/models")[0] == 200  # so the request has been begun
    assert server.ask("GET", "/v1/models")[0] == 200
    wait_until(lambda: "gone" in caplog.text)
    assert "unexpected" not in caplog.text


def test_each_request_has_an_id(server):
    found = {server.send("GET", path).headers["x-request-id"] for path in ("/v1/models", "/v1/models", "/nothing")}
    assert len(found) == 3
    assert server.send("GET", "/v1/models", host="evil.example").headers["x-request-id"] not in found


def test_no_prompt_is_logged(server, caplog):
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", logger="phi3_core")
    server.chat("the secret capital")
    server.chat("the secret capital", max_tokens=66)
    server.chat("the secret capital", temperature=9)
    server.ask("GET", "/v1/secret?secret=secret")
    assert "POST /v1/chat/completions: 200" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.example"])
def test_others_reach_the_server_with_a_key_only(host):
    with pytest.raises(UsageError, match="--api-key-file"):
        ServerSettings(models=("a",), host=host).check()
    ServerSettings(models=("a",), host=host, api_key=KEY).check()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_needs_no_key(host):
    ServerSettings(models=("a",), host=host).check()


@pytest.mark.parametrize("origin", ["localhost:3000", "*", "http://localhost:3000/", "http://", ""])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(UsageError, match="is no origin"):
        ServerSettings(models=("a",), allowed_origins=(origin,)).check()


@pytest.mark.parametrize("text", ["short", "", f"{KEY}\n{KEY}", f"{KEY} b", "ключ-который-не-ascii"])
def test_a_key_that_clients_cannot_state_is_refused(tmp_path, text):
    (tmp_path / "key").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="has no API key"):
        read_key(str(tmp_path / "key"))


@pytest.mark.skipif(os.name != "posix", reason="on Windows the folder says who reads a file")
@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_key_that_others_can_read_is_told(tmp_path, caplog, mode, is_told):
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    (tmp_path / "key").chmod(mode)
    assert read_key(str(tmp_path / "key")) == KEY
    assert (f"chmod 600 {tmp_path / 'key'}" in caplog.text) == is_told


def test_a_key_is_read_without_what_editors_add(tmp_path):
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    assert read_key(str(tmp_path / "key")) == KEY
    with pytest.raises(UsageError, match="cannot be read"):
        read_key(str(tmp_path / "other"))


def test_settings_do_not_show_the_key():
    assert KEY not in repr(ServerSettings(models=("a",), api_key=KEY))
