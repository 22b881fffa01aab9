"""A child process never runs the user's program again."""

from __future__ import annotations

import multiprocessing.spawn
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from phi3_core import interpreter
from phi3_core.errors import UsageError

NAMES = ("python", "python3.12", "python3.13t", "Python.exe", "pythonw.exe", ".python3.12-wrapped", "pypy3")
POSIX = pytest.mark.skipif(os.name != "posix", reason="the application is a shell script")
PROGRAM = """
import sys
with open({log!r}, "a", encoding="utf-8") as log:
    print(sys.argv[2:], file=log)
if len(open({log!r}, encoding="utf-8").readlines()) > 8:
    sys.exit(77)  # it is started again and again
sys.executable, sys.frozen = {application!r}, True  # as PyInstaller's bootloader has it
sys.argv = sys.argv[1:]
import phi3_core as phi3
{support}
try:
    with phi3.load({source!r}, device="parrot") as model:
        print(model.generate("Hello world").text)
except phi3.Phi3Error as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def application(tmp_path, plugins, source):
    """A program that is its own interpreter; it is handed what its code does first, and logs its starts."""
    plugins.add("parrot")

    def make(support):
        file, log, code = tmp_path / "application", tmp_path / "starts", tmp_path / "code"
        values = {"log": str(log), "application": str(file), "source": source, "support": support}
        code.write_text(textwrap.dedent(PROGRAM).format(**values), encoding="utf-8")
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$0" "$@"\n', encoding="utf-8")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        done = subprocess.run([file], capture_output=True, text=True, timeout=60, check=False)
        return done, log.read_text(encoding="utf-8").splitlines()

    return make


@pytest.fixture(autouse=True)
def _nothing_is_set_for_multiprocessing(monkeypatch):
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", None)


@POSIX
def test_a_frozen_application_is_not_started_again(application):
    done, starts = application("")
    assert (done.returncode, len(starts), done.stderr) == (2, 1, "")
    assert "freeze_support()" in done.stdout


@POSIX
def test_a_frozen_application_that_supports_it_answers(application):
    done, starts = application("phi3.freeze_support()")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello world\n", "")
    assert all("phi3_core.worker" in start for start in starts[1:])


@pytest.mark.parametrize("name", NAMES)
def test_interpreters_are_known_by_name(name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / name))
    assert interpreter.python() == sys.executable


@pytest.mark.parametrize("name", ["uwsgi", "apache2", "blender", "pythonista-app", "", None])
def test_the_interpreter_of_an_embedded_python_is_found(name, monkeypatch, tmp_path):
    expected = interpreter.python()
    monkeypatch.setattr(sys, "executable", name and str(tmp_path / name))
    monkeypatch.setattr(sys, "exec_prefix", str(Path(expected).parents[1]))
    if os.name == "posix":
        assert Path(interpreter.python()).samefile(expected)
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    with pytest.raises(UsageError, match="no Python interpreter") as caught:
        interpreter.python()
    assert "set_executable" in caught.value.hint


def test_the_interpreter_that_multiprocessing_was_told_is_used(monkeypatch, tmp_path):
    stated = str(tmp_path / "python3")
    multiprocessing.spawn.set_executable(stated)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert interpreter.python() == stated
    assert interpreter.module_command("phi3_core.worker", "3")[-3:] == ["-m", "phi3_core.worker", "3"]
    multiprocessing.spawn.set_executable(str(tmp_path / "application"))  # as it is before it is set
    with pytest.raises(UsageError, match="frozen"):
        interpreter.python()
