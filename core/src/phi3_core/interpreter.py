"""Which program runs this Python, so that a child process never runs the user's program again.

``sys.executable`` is the user's program in applications that are frozen (PyInstaller, cx_Freeze) and where Python is
embedded in another program.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .errors import UsageError

# Also pythonw.exe, python3.13t, and what Nix calls .python3.12-wrapped.
_PYTHON = re.compile(r"\.?(python|pypy|graalpy)[\d.]*[dtw]*(-wrapped)?(\.exe)?", re.IGNORECASE)
_RUN_MODULE = "--phi3-run-module"
_runs_modules = False


def python() -> str:
    """Return the path of a program that is this Python's interpreter.

    Raises:
        UsageError: there is none.
    """
    stated = _set_for_multiprocessing()
    if stated is not None:
        return stated
    name = Path(sys.executable or "").name
    if is_frozen():
        raise UsageError(
            f"{name} is a frozen application, and this needs a Python interpreter",
            hint="multiprocessing.set_executable() names one",
        )
    if _PYTHON.fullmatch(name):
        return sys.executable
    found = next((path for path in _usual_places() if path.is_file()), None)
    if found is None:
        raise UsageError(
            f"no Python interpreter was found: this program is {sys.executable or 'not known'}",
            hint="multiprocessing.set_executable() names one",
        )
    return str(found)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module as ``python -m`` does, without the current folder in ``sys.path``.

    Raises:
        UsageError: this application is frozen and has not called :func:`freeze_support`.
    """
    if is_frozen() and _set_for_multiprocessing() is None:
        if not _runs_modules:
            raise UsageError(
                f"{Path(sys.executable).name} is a frozen application, which has to provide for worker processes",
                hint="call phi3_core.freeze_support() first thing in the program",
            )
        return [sys.executable, _RUN_MODULE, module, *arguments]
    # Python 3.10 does not have -P.
    return [python(), *(["-P"] if sys.version_info >= (3, 11) else []), "-m", module, *arguments]


def freeze_support() -> None:
    """Let a frozen application have worker processes. Call this first in the program.

    A frozen application has no Python interpreter of its own: its workers are started as the application itself, and
    this function runs the worker in place of the program. Elsewhere it does nothing.
    """
    global _runs_modules  # noqa: PLW0603 - a fact of this process
    if not is_frozen():
        return
    _runs_modules = True
    if sys.argv[1:2] == [_RUN_MODULE] and len(sys.argv) > 2:
        import runpy  # start-up: needed only in workers of frozen applications

        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        sys.exit(0)


def is_frozen() -> bool:
    """Return whether the program is an application with Python in it."""
    return bool(getattr(sys, "frozen", False))


def _set_for_multiprocessing() -> str | None:
    """Return the interpreter that the program has named with ``multiprocessing.set_executable``, if any."""
    spawn = sys.modules.get("multiprocessing.spawn")
    stated = os.fsdecode((spawn.get_executable() if spawn is not None else None) or "")
    # Until it is set, it is what sys.executable was when multiprocessing was imported.
    return stated if stated != sys.executable and _PYTHON.fullmatch(Path(stated).name) else None


def _usual_places() -> list[Path]:
    """Return where the interpreter of an embedded Python may be."""
    if sys.platform == "win32":
        return [Path(sys.exec_prefix, "python.exe"), Path(sys.exec_prefix, "Scripts", "python.exe")]
    version = ".".join(map(str, sys.version_info[:2]))
    return [Path(sys.exec_prefix, "bin", f"python{version}"), Path(sys.exec_prefix, "bin", "python3")]
