"""``python -m phi3_dml.adapters.windows_probe [STEP …]``: ask Windows for its adapters, all steps but those named.

Asking runs the code of drivers, and a driver may crash or hang. So it is done in a process of its own, which says what
it is about to do before it does it; :mod:`phi3_dml.adapters.windows` starts it again without the step that was its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from phi3_core.backend import system_library
from phi3_core.values import to_plain

from . import dxcore, dxgi
from .records import Adapter

MARK = "phi3-dml: "
"""Begins every line that is ours: drivers print to the same place."""
_NO_DIALOGS = 0x0001 | 0x0002 | 0x8000  # SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX
_REMOTE_SESSION = 0x1000  # SM_REMOTESESSION


def steps() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is to be done, in order; each step is found once the one before it has been done."""
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
    """One line to whoever started this."""
    # The line break in front ends whatever a driver may have begun to print.
    print(f"\n{MARK}{json.dumps(facts)}", flush=True)


def main(passed_over: list[str]) -> None:
    """Carry out the steps."""
    with contextlib.suppress(AttributeError):  # elsewhere than on Windows, where the steps will fail by themselves
        getattr(ctypes, "WinDLL")("kernel32.dll").SetErrorMode(_NO_DIALOGS)  # noqa: B009
    for step, act in steps():
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
    main(sys.argv[1:])
