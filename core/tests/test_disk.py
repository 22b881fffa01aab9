"""Bytes have one unit, and a full disk is one error."""

from __future__ import annotations

import errno
import shutil

import pytest
from phi3_core import disk
from phi3_core.errors import DiskFullError
from phi3_core.units import format_bytes


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


def test_windows_own_numbers_count(tmp_path):
    error = OSError("disk full")
    vars(error)["winerror"] = 112  # as Windows sets it
    assert disk.is_full(error)


def test_a_folder_that_is_not_there_lies_on_the_disk_of_the_next_one_above(tmp_path):
    assert disk.existing_parent(tmp_path / "a" / "b") == tmp_path
    assert disk.free_bytes(tmp_path / "a" / "b") > 0
