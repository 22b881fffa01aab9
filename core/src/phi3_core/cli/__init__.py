"""The command ``phi3``.

Each command imports what it needs when it runs, so that ``phi3 --help`` and light commands start fast.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    While it imports what it needs, Ctrl-C ends the process without a traceback.
    """
    end_at_once = signal.getsignal(signal.SIGINT) is signal.default_int_handler and _is_main_thread()
    if end_at_once:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def begin() -> None:
        if end_at_once:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        from .command import run

        return run(arguments, begin)
    finally:
        begin()


def _is_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()
