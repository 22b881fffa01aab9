"""``python -m phi3_dml.adapters.windows_probe [STEP …]``: read the adapters of Windows, skipping the given steps.

This runs code of drivers, which may crash or hang. Therefore a separate process does it and prints each step before
executing it; :mod:`phi3_dml.adapters.windows` restarts it without a step that failed this way.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from phi3_core.backend import system_library
from phi3_core.values import to_plain

from . import dxcore, dxgi
from .records import Adapter

MARK = "phi3-dml: "
"""Prefix of the probe's lines; drivers may print to stdout too."""
_NO_DIALOGS = 0x0001 | 0x0002 | 0x8000  # SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX
_REMOTE_SESSION = 0x1000  # SM_REMOTESESSION


def steps() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the steps in order, as name and function. Execute each before the next is requested."""
    yield "session", lambda: bool(system_library("user32.dll").GetSystemMetrics(_REMOTE_SESSION))
    found: list[Adapter] = []

    def look() -> list[Adapter]:
        found[:] = [adapter for adapter, _ in dxgi.adapters(system_library("dxgi.dll"))]
        return found

    yield "adapters", look
    yield "core", lambda: dxcore.read(system_library("dxcore.dll"))
    for adapter in found:
        if not adapter.software:
            yield f"trial {adapter.position}", _trial(adapter.position)


def _trial(position: int) -> Callable[[], Any]:
    return lambda: dxgi.attempt(system_library("dxgi.dll"), system_library("d3d12.dll"), position)


def say(**facts: Any) -> None:
    """Print one message for the parent process."""
    # The leading line break ends a line that a driver may have begun.
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)


def execute(steps: Iterable[tuple[str, Callable[[], Any]]], passed_over: Collection[str]) -> None:
    """Execute all steps except those in ``passed_over``, and print their results or failures."""
    with contextlib.suppress(AttributeError):  # not on Windows: each step will report its failure
        getattr(ctypes, "WinDLL")("kernel32.dll").SetErrorMode(_NO_DIALOGS)  # noqa: B009
    for step, act in steps:
        if step in passed_over:
            continue
        say(step=step)
        try:
            found = act()
        except Exception as error:
            say(step=step, failure=f"{type(error).__name__}: {error}")
        else:
            say(step=step, found=to_plain(found))


if __name__ == "__main__":
    execute(steps(), sys.argv[1:])
