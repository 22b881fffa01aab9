"""Run Windows' CPython under Wine: run.py [--screen] FOLDER core|all ARGUMENTS…, FOLDER as environment.py makes it.

The standard streams of the program are pipes: Wine has no others that CPython takes, apart
from a terminal. With a screen, Wine has a DXGI adapter, which Mesa computes on the CPU. Everything that was started is
killed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# Wine's own C++ runtime lacks functions that the wheels use, and it shows a dialog when a program crashes.
_OVERRIDES = (
    "mscoree,mshtml,winedbg.exe=;"
    "msvcp140,msvcp140_1,msvcp140_2,msvcp140_codecvt_ids,msvcp140_atomic_wait,vcomp140,concrt140,bcryptprimitives=n,b"
)
_KEPT = ("PATH", "HOME", "TMPDIR", "PHI3_TEST_CACHE", "CI")


def environment(folder: Path) -> dict[str, str]:
    """Return the environment variables for programs under Wine."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "WINEARCH": "win64",
        "WINEPREFIX": str(folder / "prefix"),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": _OVERRIDES,
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "0",
    }


def windows_path(path: Path) -> str:
    """Return a path as programs under Wine see it."""
    return "Z:" + str(path).replace("/", "\\")


def wine(folder: Path, *command: str, screen: bool = False, seconds: float = 1500.0) -> int:
    """Run a Windows program until it ends, printing what it prints, and return its exit code."""
    with _screen() if screen else contextlib.nullcontext("") as display:
        settings = {**environment(folder), "DISPLAY": display}
        process = subprocess.Popen(
            ["wine", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=settings
        )
        printing = threading.Thread(target=_print, args=(process.stdout,), daemon=True)
        printing.start()
        try:
            process.stdin.close()
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"stopped after {seconds:g} s", flush=True)
            return 124
        finally:
            subprocess.run(["wineserver", "-k"], env=settings, check=False)
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the next one needs a server of its own
                subprocess.run(["wineserver", "-w"], env=settings, check=False, timeout=30)
            printing.join(10)


def _print(lines: IO[bytes]) -> None:
    """Print what comes. The pipe's end tells nothing: Wine's own processes hold it for as long as they live."""
    for line in lines:
        print(line.decode("utf-8", "replace").rstrip("\r\n"), flush=True)


@contextlib.contextmanager
def _screen() -> Iterator[str]:
    """Provide a screen of its own; Xvfb takes the first number that is free."""
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "640x480x24"], pass_fds=[writer], stderr=subprocess.DEVNULL
    ) as server:
        os.close(writer)
        try:
            with os.fdopen(reader, encoding="ascii") as numbers:
                yield f":{numbers.readline().strip()}"
        finally:
            server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screen", action="store_true")
    parser.add_argument("folder", type=Path)
    parser.add_argument("site", choices=("core", "all"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    root = given.folder.resolve()
    sys.exit(wine(root, str(root / given.site / "python.exe"), *given.arguments, screen=given.screen))
