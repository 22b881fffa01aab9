"""What the page says when the server cannot answer."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow  # a browser and servers


def test_a_server_that_is_gone_and_comes_back(open_page, serve, ask, until):
    with serve() as server:
        page = open_page(server, expected=("Failed to load resource",))
        ask(page, "Hello")
    ask(page, "world")
    assert page.get_by_text("The server does not answer.").first.is_visible()
    assert page.locator("#state").inner_text() == "no answer"
    with serve(port=server.port):
        until(page, "document.getElementById('notice').textContent === ''")
        page.get_by_role("button", name="Generate again").click()
        page.locator(".assistant:last-child .facts").wait_for()
        assert page.locator(".assistant .content").last.inner_text() == "world"


def test_a_server_that_dies_in_the_middle_of_an_answer(open_page, serve, until):
    with serve(pace=0.05) as server:
        page = open_page(server, expected=("Failed to load resource", "net::ERR"))
        page.get_by_label("Message", exact=True).fill("0123456789" * 20)
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.assistant .content').textContent.length > 5")
        server.process.kill()
        page.get_by_text("The connection was lost. The answer is incomplete.").wait_for()
        assert page.locator(".assistant .content").inner_text().startswith("01234")


def test_a_refused_request_says_why(open_page, echo, ask):
    page = open_page(echo, expected=("status of 400",))
    answer = ask(page, "x" * 20_000)
    assert answer.locator(".error").inner_text()
