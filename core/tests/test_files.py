"""Renaming and deleting while another program looks: on Windows for real, elsewhere with the errors that it reports."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from phi3_core import files
from system_errors import windows_error

on_windows = pytest.mark.skipif(os.name != "nt", reason="only Windows keeps open files from being renamed")

HOLD = "import sys; stream = open(sys.argv[1], 'rb'); print('ready', flush=True); sys.stdin.read()"


def hold(file):
    """Have another program open a file until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(file)]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    program.stdout.readline()
    return program


class Action:
    """Fails with the given errors, one for each call, then returns."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize("code", [5, 32, 33, 145])
def test_what_windows_refuses_for_a_moment_is_tried_again(code):
    action = Action(windows_error(code), windows_error(code))
    assert files.retry(action) == "done"
    assert action.calls == 3


@pytest.mark.parametrize("error", [windows_error(2), windows_error(112), OSError(28, "No space left"), ValueError("x")])
def test_other_errors_are_raised_at_once(error):
    action = Action(error, error)
    with pytest.raises(type(error)):
        files.retry(action)
    assert action.calls == 1


@pytest.mark.skipif(os.name == "nt", reason="errors of other systems")
def test_a_refusal_of_another_system_is_final():
    action = Action(PermissionError(13, "Permission denied"))
    with pytest.raises(PermissionError):
        files.retry(action)
    assert action.calls == 1


def test_what_windows_refuses_for_long_is_raised():
    action = Action(*[windows_error(32)] * 1000)
    started = time.monotonic()
    with pytest.raises(OSError, match="said by Windows"):
        files.retry(action, limit_s=0.3)
    assert 3 <= action.calls < 30
    assert time.monotonic() - started < 2


def test_a_long_wait_is_said_once(caplog):
    caplog.set_level("INFO", logger="phi3_core")
    with pytest.raises(OSError, match="said by Windows"):
        files.retry(Action(*[windows_error(32, "held")] * 1000), limit_s=3.5)
    assert [record.getMessage() for record in caplog.records] == ["another program uses held; trying again"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (windows_error(32), True),
        (windows_error(1224), True),
        (windows_error(5), False),
        (windows_error(5, "a", "b"), True),
        (windows_error(2), False),
        (PermissionError(13, "Permission denied"), False),
    ],
)
def test_errors_of_files_in_use_are_told_apart(error, expected):
    assert files.is_in_use(error) == expected


def test_files_are_replaced_and_deleted(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_bytes(b"new")
    old.write_bytes(b"old")
    files.replace_path(new, old)
    assert old.read_bytes() == b"new"
    files.unlink(old)
    files.unlink(old)
    for remove in (files.remove_tree, files.discard_tree):
        (tmp_path / "folder" / "deep").mkdir(parents=True)
        remove(tmp_path / "folder")
        remove(tmp_path / "folder")
        assert not (tmp_path / "folder").exists()


@on_windows
@pytest.mark.parametrize("change", ["replace", "unlink", "remove_tree"])
def test_a_program_that_soon_closes_a_file_is_waited_for(tmp_path, change):
    held = tmp_path / "folder" / "held"
    held.parent.mkdir()
    held.write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    program = hold(held)
    end = threading.Timer(0.7, program.communicate)
    end.start()
    started = time.monotonic()
    if change == "replace":
        files.replace_path(tmp_path / "new", held)
    elif change == "unlink":
        files.unlink(held)
    else:
        files.remove_tree(held.parent)
    assert time.monotonic() - started > 0.5
    assert not held.exists() or held.read_bytes() == b"new"
    end.join()


def test_a_file_in_use_is_named_on_windows_and_no_matter_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LIMIT_S", 0.2)
    held = tmp_path / "deep" / "held"
    held.parent.mkdir()
    held.write_bytes(b"x")
    assert files.first_in_use(tmp_path) is None
    program = hold(held)
    found = files.first_in_use(tmp_path)
    program.communicate()
    assert found == (held if os.name == "nt" else None)
    assert files.first_in_use(tmp_path) is None
    assert files.first_in_use(tmp_path / "nowhere") is None


@pytest.mark.parametrize("remove", [files.remove_tree, files.discard_tree])
def test_read_only_files_are_removed_too(tmp_path, remove):
    folder = tmp_path / "models"
    (folder / "inner").mkdir(parents=True)
    for file in (folder / "model.blob", folder / "inner" / "model.blob"):
        file.touch()
        file.chmod(0o400)
    remove(folder)
    assert not folder.exists()
