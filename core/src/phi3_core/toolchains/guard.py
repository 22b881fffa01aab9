"""Run a command, and kill it with all its child processes when the parent process ends.

Run as a script, by its path: ``python guard.py COMMAND …``. It must be the first process of a new session, and its
standard input a pipe that the parent holds open and never writes to. For POSIX; Windows has jobs for this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run a command and return its exit code; 128 plus the number of the signal that ended it."""
    # Not the pipe, from which the command would wait for input.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_wait_for_end, daemon=True).start()
    code = process.wait()
    return 128 - code if code < 0 else code  # as in shells


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)  # includes this process


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
