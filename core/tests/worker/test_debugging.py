"""What an author of a backend needs to see what happens in a worker: its output, and a debugger."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time

import pytest
from phi3_core.cli.output import print_error
from phi3_core.errors import BackendDiedError, UsageError
from phi3_core.machine import this_machine
from phi3_core.plugin import installed
from phi3_core.worker.host import Worker

NOISY = """
import os
print("to stdout"{flush})
os.write(2, b"to stderr\\n")
"""


@pytest.fixture
def start(plugins):
    """Starts a worker with a backend; all are killed at the end."""
    workers = []

    def begin(name, **given):
        plugins.add(name, **given)
        (backend,) = [backend for backend in installed()[0] if backend.name == name]
        workers.append(Worker().open(backend))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()


@pytest.fixture
def logged(monkeypatch):
    """The messages that the user sees, as they come."""
    messages = []

    class Handler(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    monkeypatch.setattr(logging.getLogger("phi3_core"), "handlers", [Handler(logging.WARNING)])
    return messages


def wait_for(messages, pattern):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for message in messages:
            if found := re.search(pattern, message):
                return found
        time.sleep(0.02)
    raise AssertionError(messages)


@pytest.mark.parametrize("value", ["1", "yes"])
def test_what_a_backend_prints_is_shown_on_request(start, logged, monkeypatch, value):
    monkeypatch.setenv("PHI3_SHOW_OUTPUT", value)
    worker = start("noisy", changes=NOISY.replace("{flush}", ""))
    worker.call("detect", limit_s=30.0, machine=this_machine())
    assert wait_for(logged, r"^noisy \| to stdout$")
    assert wait_for(logged, r"^noisy \| to stderr$")


@pytest.mark.parametrize("value", ["", "0"])
def test_what_a_backend_prints_is_not_shown_by_default(start, logged, monkeypatch, value):
    monkeypatch.setenv("PHI3_SHOW_OUTPUT", value)
    worker = start("noisy", changes=NOISY.replace("{flush}", ", flush=True"))
    worker.call("detect", limit_s=30.0, machine=this_machine())
    worker.close()
    assert set(worker.last_lines) == {"to stdout", "to stderr"}
    assert logged == []


LOUD = """
@hookimpl
def detect(machine):
    raise RuntimeError("no such kernel, " * 100 + "the end")
"""


def test_a_shortened_message_names_where_all_of_it_is(run_main, plugins, monkeypatch):
    plugins.add("loud", changes=LOUD)
    _, out, err = run_main("devices", "--refresh", "--json")
    (broken,) = [each for each in json.loads(out)["broken"] if each["plugin"] == "loud"]
    assert len(broken["error"]) < 650
    assert broken["error"].endswith("kernel, no… [PHI3_SHOW_OUTPUT=1 shows all of it]")
    assert "the end" not in err
    monkeypatch.setenv("PHI3_SHOW_OUTPUT", "1")
    _, _, err = run_main("devices", "--refresh", "--json")
    assert "phi3: loud | Traceback (most recent call last):\n" in err
    assert "no such kernel, the end\n" in err


DYING = """
@hookimpl
def detect(machine):
    import os
    for number in range({lines}):
        os.write(2, b"line %d\\n" % number)
    os._exit(9)
"""


@pytest.mark.parametrize(("lines", "first"), [(8, "line 0"), (9, "… (PHI3_SHOW_OUTPUT=1 shows all of it)")])
def test_more_lines_than_are_shown_are_told_of(start, logged, lines, first):
    worker = start("dying", changes=DYING.replace("{lines}", str(lines)))
    with pytest.raises(BackendDiedError) as caught:
        worker.call("detect", limit_s=30.0, machine=this_machine())
    print_error(caught.value, traceback=False)
    assert logged[1] == f"  | {first}"
    assert logged[-1] == f"  | line {lines - 1}"
    assert len(logged) == 1 + lines


class Client:
    """As much of a debugger as it takes to attach: the Debug Adapter Protocol over a socket."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._stream = self._socket.makefile("rwb")
        self._number = 0
        self.request("initialize", adapterID="test")
        self.request("attach", justMyCode=False)
        self.wait(lambda message: message.get("event") == "initialized")
        self.request("configurationDone")

    def request(self, command, **arguments):
        self._number += 1
        message = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        content = json.dumps(message).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self._stream.flush()

    def wait(self, is_it):
        while True:
            length = 0
            while (line := self._stream.readline().strip()) or not length:
                assert line or length, "the debugger's connection is closed"
                name, _, value = line.partition(b":")
                length = int(value) if name == b"Content-Length" else length
            message = json.loads(self._stream.read(length))
            if is_it(message):
                return

    def close(self):
        self._stream.close()
        self._socket.close()


@pytest.mark.parametrize(("hook", "verb"), [("detect", "detect"), ("import", "open")])
def test_a_worker_waits_for_a_debugger_without_a_time_limit(start, logged, monkeypatch, hook, verb):
    pytest.importorskip("debugpy")
    monkeypatch.setenv("PHI3_DEBUG", f"parrot:{hook}")
    worker = start("parrot")
    found = []

    def call():
        found.extend(worker.call("detect", limit_s=0.1, machine=this_machine()))

    thread = threading.Thread(target=call)
    thread.start()
    port = int(
        wait_for(logged, rf"^parrot: process \d+ waits for a debugger at 127.0.0.1:(\d+) before it calls {hook}")[1]
    )
    time.sleep(1.0)
    assert thread.is_alive()
    client = Client(port)
    thread.join(30)
    client.close()
    assert found[0]["offer"]["device"]["name"] == "A parrot"
    assert len(logged) == 1


def test_other_backends_and_other_hooks_do_not_wait(start, logged, monkeypatch):
    monkeypatch.setenv("PHI3_DEBUG", "parrot:load")
    for name in ("parrot", "other"):
        start(name).call("detect", limit_s=30.0, machine=this_machine())
    assert logged == []


def test_without_debugpy_the_remedy_is_said(start, monkeypatch):
    monkeypatch.setenv("PHI3_DEBUG", "parrot:detect")
    hidden = "import sys\nsys.modules['debugpy'] = None\n"
    with pytest.raises(UsageError, match="PHI3_DEBUG needs debugpy") as caught:
        start("parrot", changes=hidden).call("detect", limit_s=30.0, machine=this_machine())
    assert caught.value.hint == "pip install debugpy"


@pytest.mark.parametrize("value", ["1", "parrot", ":load", "parrot:", "parrot:fly", "load", "parrot:close"])
def test_a_malformed_request_is_one_line(run_main, plugins, monkeypatch, value):
    plugins.add("parrot")
    monkeypatch.setenv("PHI3_DEBUG", value)
    code, _, err = run_main("devices")
    assert code == 2
    assert f"PHI3_DEBUG is {value!r}, not a backend and a hook (PHI3_DEBUG=BACKEND:HOOK, where HOOK is one of" in err
