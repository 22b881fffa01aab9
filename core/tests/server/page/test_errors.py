"""What the page says when the server cannot answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import time

import pytest

pytestmark = pytest.mark.slow  # a browser and servers

KEY = "correct-horse-battery"


def test_a_server_that_dies_and_comes_back(open_page, serve, ask, until):
    with serve() as server:
        page = open_page(server, expected=("Failed to load resource", "net::ERR"))
        page.get_by_label("Message", exact=True).fill("0123456789" * 20)
        page.keyboard.press("Enter")
        page.locator(".assistant").wait_for()
        until(page, "document.querySelector('.assistant .content')?.textContent.length > 5")
        server.process.kill()
        page.get_by_text("The connection was lost. The answer is incomplete.").wait_for()
        assert page.locator(".assistant .content").inner_text().startswith("01234")
    answer = ask(page, "Hello")
    assert answer.get_by_text("The server does not answer.").is_visible()
    assert page.locator("#state").inner_text() == "no answer"
    with serve(port=server.port):
        until(page, "document.getElementById('notice').textContent === ''")
        page.get_by_role("button", name="Generate again").click()
        answer.locator(".facts").wait_for()
        assert answer.locator(".content").inner_text() == "Hello"


def test_a_refused_request_says_why(open_page, echo, ask):
    page = open_page(echo, expected=("status of 400",))
    answer = ask(page, "x " * 6000)
    assert "context" in answer.locator(".error").inner_text()


@pytest.fixture(scope="module")
def locked(serve, tmp_path_factory):
    """A server with a key, for which at most one answer waits."""
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(KEY, encoding="utf-8")
    with serve("--api-key-file", str(file), "--max-waiting", "1") as server:
        yield server


def test_a_server_with_a_key_asks_for_it_once(open_page, locked, ask):
    page = open_page(locked, expected=("status of 401",))
    field = page.get_by_role("textbox", name="API key")
    field.fill("wrong")
    field.press("Enter")
    page.get_by_role("heading", name="The API key is wrong.").wait_for()
    field.fill(KEY)
    field.press("Enter")
    assert ask(page, "Hello").locator(".content").inner_text() == "Hello"
    page.reload()  # it is kept for the tab, and nowhere else
    page.locator(".message").nth(1).wait_for()
    assert ask(page, "world").locator(".content").inner_text() == "world"
    kept = page.evaluate("[Object.values(sessionStorage), JSON.stringify(localStorage)]")
    assert kept[0] == [KEY]
    assert KEY not in kept[1]


def test_a_key_that_is_asked_for_later_sends_the_message_again(open_page, locked):
    page = open_page(locked, expected=("status of 401",))
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="API key").fill(KEY)
    page.locator(".assistant .error").wait_for(state="attached")
    page.keyboard.press("Enter")
    page.locator(".assistant .facts").wait_for()
    assert page.locator(".assistant .content").inner_text() == "Hello"


def test_a_busy_server_is_asked_again(open_page, locked):
    page = open_page(locked, expected=("status of 401", "status of 503"))
    page.get_by_role("textbox", name="API key").fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#state.well").wait_for()
    messages = [{"role": "user", "content": "0123456789" * 40}]
    body = json.dumps({"model": page.locator("#model").input_value(), "messages": messages, "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with contextlib.ExitStack() as others:
        for _ in range(3):  # two are answered, one waits
            connection = http.client.HTTPConnection("127.0.0.1", int(locked.port), timeout=20)
            others.callback(connection.close)
            connection.request("POST", "/v1/chat/completions", body, headers)
            time.sleep(0.3)
        page.get_by_label("Message", exact=True).fill("Hello")
        page.keyboard.press("Enter")
        page.get_by_text("The server is busy. The next try is in").wait_for()
    page.locator(".assistant .facts").wait_for()
    assert page.locator(".assistant .content").inner_text() == "Hello"
    assert page.locator(".assistant .note").count() == 0
