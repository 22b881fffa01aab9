"""A backend that generates several answers at once, and faults that a prompt asks for.

An answer counts on from the last id of its prompt. The first id of the prompt says how it goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STEADY, RAISES, HANGS, IGNORES_CLOSE, DIES, DIES_OF_IDS = range(1, 7)

CHOIR = """
import os, threading, time
Engine.max_concurrency = {most}
Engine.context_length = 4096
running, peak, lock = 0, 0, threading.Lock()

@hookimpl
def load(artifact, device, options):
    with open({log!r}, "a") as file:
        print("{name}", file=file)
    return Engine()

@hookimpl
def generate(engine, request):
    global running, peak
    how, last = request.prompt_ids[0] if {faults} else 1, request.prompt_ids[-1]
    with lock:
        running += 1
        if running > peak:
            peak = running
            print("peak", peak, flush=True)
    try:
        for count in range(1, request.max_new_tokens + 1):
            time.sleep({pace})
            if how == 2 and count == 3:
                raise RuntimeError("lost the device")
            if how == 3 and count == 3:
                time.sleep(3600)
            if how == 5 and count == 10:
                os._exit(9)
            if how == 6 and (last + count) % 100 == 5:
                os._exit(9)
            yield last + count
    finally:
        if how == 4 and count < request.max_new_tokens:
            time.sleep(3600)
        with lock:
            running -= 1
"""


def choir(name: str, log: object, *, most: int = 4, pace: float = 0.01, faults: bool = True) -> str:
    """Return the changes for a backend of ``Plugins.add``; each loading adds a line to the file ``log``.

    Args:
        name: the name of the backend.
        log: a file that gets the name whenever an engine is loaded.
        most: the number of answers at once.
        pace: the seconds for one id.
        faults: whether the prompt can ask for faults.
    """
    values = {"{most}": most, "{log!r}": repr(str(log)), "{name}": name, "{pace}": pace, "{faults}": faults}
    text = CHOIR
    for key, value in values.items():
        text = text.replace(key, str(value))
    return text


def paced(*, first_s: float, token_s: float) -> str:
    """Return the changes for a backend that takes its time for the first token, and for each one, and says one word."""
    return f"""
import time
Engine.context_length = 4096

@hookimpl
def generate(engine, request):
    time.sleep({first_s})
    for _ in range(request.max_new_tokens):
        time.sleep({token_s})
        yield request.prompt_ids[1]
"""


SLOW = """
import time

@hookimpl
def generate(engine, request):
    for _ in range(request.max_new_tokens):
        time.sleep(0.02)
        yield request.prompt_ids[1]
"""
"""Repeats the first word of a prompt, which takes a fiftieth of a second each time."""


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail if it does not within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
