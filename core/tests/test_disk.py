"""Bytes have one unit, and a full disk is one error."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path, PureWindowsPath
from typing import cast

import pytest
from phi3_core import disk
from phi3_core.errors import DiskFullError, StoreError
from phi3_core.units import format_bytes
from system_errors import windows_error


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (98_362_432, "98.4 MB"),
        (2_150_000_000, "2.1 GB"),
        (2**34, "17.2 GB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_sizes_are_in_powers_of_a_thousand(count, text):
    assert format_bytes(count) == text


def test_too_little_space_has_both_figures(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    disk.check_free(tmp_path / "not" / "there", 1_000_000, "the work")
    with pytest.raises(DiskFullError, match=r"the work needs 2\.0 MB, and only 1\.0 MB are free in"):
        disk.check_free(tmp_path, 2_000_000, "the work")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_what_the_system_says_of_a_full_disk_is_one_error(tmp_path, number):
    with pytest.raises(DiskFullError, match="no space is left on the disk of") as caught:
        disk.raise_if_full(OSError(number, "No space"), tmp_path)
    assert caught.value.exit_code == 4
    disk.raise_if_full(OSError(errno.EACCES, "Permission denied"), tmp_path)


def test_windows_own_numbers_count():
    assert disk.is_full(windows_error(112))
    assert not disk.is_full(windows_error(5))


def test_a_folder_that_is_not_there_lies_on_the_disk_of_the_next_one_above(tmp_path):
    assert disk.existing_parent(tmp_path / "a" / "b") == tmp_path
    assert disk.free_bytes(tmp_path / "a" / "b") > 0


class Unreachable(PureWindowsPath):
    """A path of which nothing exists, on Windows."""

    def exists(self):
        if self.drive.startswith("\\\\"):
            raise OSError(22, "The user name or password is incorrect")
        return False


@pytest.mark.parametrize(
    ("path", "root"),
    [
        (r"Q:\x\y", "Q:\\"),
        (r"Q:x\y", "Q:"),
        (r"\\server\share\x\y", r"\\server\share" + "\\"),
        (r"\\?\Q:\x\y", r"\\?\Q:" + "\\"),
        (r"\\?\UNC\server\share\x", r"\\?\UNC\server\share" + "\\"),
        (r"x\y", "."),
    ],
)
def test_the_way_up_ends_at_a_root_that_does_not_exist(path, root):
    assert str(disk.existing_parent(cast("Path", Unreachable(path)))) == root
    assert disk.missing_drive(cast("Path", Unreachable(path))) == root


def test_no_drive_is_missing_under_a_folder_that_exists(tmp_path):
    assert disk.missing_drive(tmp_path / "a" / "b") == ""


@pytest.fixture
def missing_drive() -> Path:
    """A drive that this machine does not have."""
    if os.name != "nt":
        pytest.skip("only Windows has drives")
    return next(Path(f"{letter}:\\") for letter in "QRSTUVW" if not Path(f"{letter}:\\").exists())


def test_a_store_on_a_missing_drive_is_one_line_with_a_hint(missing_drive, monkeypatch, run_main):
    with pytest.raises(StoreError, match="does not exist"):
        disk.free_bytes(missing_drive / "x" / "y")
    monkeypatch.setenv("PHI3_HOME", str(missing_drive / "x"))
    for command in (("models", "list"), ("models", "pull", "sample", "--source")):
        code, _, err = run_main(*command)
        assert code == 4
        (line,) = [line for line in err.splitlines() if "sample comes with" not in line]
        assert f"{missing_drive} does not exist" in line
        assert "PHI3_HOME" in line


def test_an_output_on_a_missing_drive_is_one_line_with_a_hint(missing_drive, home, run_main):
    code, _, err = run_main("quantize", "sample", "-p", "int4", "--output", missing_drive / "x" / "y")
    assert code == 2
    (line,) = err.splitlines()
    assert f"{missing_drive} does not exist (name a folder on another disk)" in line
