"""Runs a command, and ends it with everything that it started when whoever asked for it is gone.

Run as a script, by its path: ``python guard.py COMMAND …``, as the first process of a new session, its
standard input a pipe that the asker holds open and never writes to. For POSIX; Windows has jobs for this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    # The command does not inherit the pipe, whose end could otherwise not be seen.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_end, daemon=True).start()
    code = process.wait()
    return 128 - code if code < 0 else code  # as shells say which signal it was


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)  # this process among them


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
