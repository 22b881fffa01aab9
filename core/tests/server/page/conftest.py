"""A real server with a backend that answers with what it was asked, and a real browser.

The browser is Chromium, Chrome or Edge of the system, or what ``PHI3_TEST_BROWSER`` names. Playwright drives it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from server_process import Server, serving
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page

PATIENCE_S = 30
"""Seconds for anything to appear; busy machines take some."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
ECHO = """
import time
Engine.context_length = 8192
Engine.max_concurrency = 2
START, END = 1, 2  # of a message, in the tokenizer of the tests
DIGITS = {digits}

@hookimpl
def generate(engine, request):
    ids = list(request.prompt_ids)
    end = max(index for index, token in enumerate(ids) if token == END)
    start = max(index for index, token in enumerate(ids[:end]) if token == START)
    said = ids[start + {role}:end]
    for token in said[: request.max_new_tokens]:
        time.sleep(0.05 if said[0] in DIGITS else 0.001)
        yield token
"""


@pytest.fixture(scope="session")
def serve(tmp_path_factory, chatml_folder, plugins_at) -> Callable:
    """Start a server: its answers come at once, but one that begins with a digit takes 50 ms for each token."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")

    @contextmanager
    def start(*options: str, port: str = "0") -> Iterator[Server]:
        folder = tmp_path_factory.mktemp("served")
        model = folder / "echo-model"
        shutil.copytree(chatml_folder, model)
        (model / "config.json").write_text(json.dumps({"model_type": "phi3", "vocab_size": 1000}), encoding="utf-8")
        (model / "model.safetensors").write_bytes(b"\0" * 8)
        site = folder / "site"
        site.mkdir()
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        role, digits = 1 + len(tokenizer.encode("user\n").ids), set(tokenizer.encode("0123456789").ids)
        changes = ECHO.replace("{role}", str(role)).replace("{digits}", str(digits))
        plugins_at(site).add("echo", changes=changes)
        environment = {**os.environ, "PYTHONPATH": str(site), "PHI3_HOME": str(folder / "home"), "PHI3_CONFIG": "none"}
        arguments = ("--model", model, "--device", "echo", "--port", port, *options)
        with serving(*arguments, environment=environment, log=folder / "log") as server:
            yield server

    return start


@pytest.fixture(scope="session")
def echo(serve) -> Iterator[Server]:
    """A server for all tests that leave it as it is."""
    with serve() as server:
        yield server


@pytest.fixture(scope="module")  # not longer: while Playwright runs, this thread has an event loop
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    named = os.environ.get("PHI3_TEST_BROWSER")
    path = next(filter(None, map(shutil.which, [named] if named else BROWSERS)), None)
    if path is None:
        assert not named, f"PHI3_TEST_BROWSER names {named}, which is not there"
        pytest.skip(f"none of {', '.join(BROWSERS)} is there; PHI3_TEST_BROWSER may name a browser")
    # Chromium refuses to run as root with its sandbox, as in containers.
    arguments = ["--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Watched:
    """What a page did that it must not do."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._read)
        page.on("pageerror", lambda error: self._note("error", str(error)))
        page.on("dialog", self._dismiss)
        page.on("popup", lambda popup: self._note("popup", popup.url))
        page.on("request", lambda request: self._reach(request.url, url))

    def _note(self, kind: str, text: str) -> None:
        if not any(each in text for each in self.expected):
            self.problems.append(f"{kind}: {text}")

    def _read(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._note(message.type, message.text)

    def _dismiss(self, dialog: Dialog) -> None:
        self._note("dialog", dialog.message)
        dialog.dismiss()

    def _reach(self, asked: str, url: str) -> None:
        if not asked.startswith((f"{url}/", f"blob:{url}")):
            self._note("request", asked)


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """Open the page of a server in a browser without history; nothing may go wrong in it that is not ``expected``.

    ``before`` is a script that the browser runs before those of the page.
    """
    opened = []

    def open_page(server: Server, *, expected: tuple[str, ...] = (), before: str = "", **options) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(PATIENCE_S * 1000)
        context.add_init_script(before)
        page = context.new_page()
        watched = Watched(page, server.url)
        watched.expected.extend(expected)
        opened.append((context, watched))
        page.goto(f"{server.url}/")
        return page

    yield open_page
    for context, _ in opened:
        context.close()
    assert [problem for _, watched in opened for problem in watched.problems] == []


@pytest.fixture
def page(open_page, echo) -> Page:
    return open_page(echo)


@pytest.fixture
def until() -> Callable:
    """Wait until an expression is true in the page. Playwright's own way needs ``eval``, which the page forbids."""

    def until(page: Page, expression: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not page.evaluate(expression):
            assert time.monotonic() < end, expression
            page.wait_for_timeout(20)

    return until


@pytest.fixture
def ask() -> Callable:
    """Send a message and wait for the end of the answer; returns the element of the answer."""

    def ask(page: Page, text: str):
        messages = page.locator(".message")
        count = messages.count()
        page.get_by_label("Message", exact=True).fill(text)
        page.keyboard.press("Enter")
        messages.nth(count + 1).locator(".tools").wait_for()
        return messages.nth(count + 1)

    return ask
