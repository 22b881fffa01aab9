"""The check that fails tests in which something open is renamed, replaced or removed, shown to find it."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import in_use
import pytest

pytestmark = pytest.mark.skipif(not in_use.SUPPORTED, reason="only Linux, untraced")

CHANGES: dict[str, Callable[[Path], object]] = {
    "rename the folder": lambda folder: folder.rename(folder.with_name("other")),
    "remove the folder": shutil.rmtree,
    "rename the file": lambda folder: (folder / "file").rename(folder / "other"),
    "replace the file": lambda folder: (folder / "spare").replace(folder / "file"),
    "remove the file": lambda folder: (folder / "file").unlink(),
}
HOLD = """
import ctypes, os, sys
way, folder = sys.argv[1:]
if way == "current folder":
    os.chdir(folder)
else:
    stream = open(f"{folder}/file", "rb")
    if way == "mapped":  # as native readers do; Python's own mmap keeps the file open too
        read, private = 1, 2
        size, offset = ctypes.c_size_t(4096), ctypes.c_long(0)
        assert ctypes.CDLL(None).mmap(None, size, read, private, stream.fileno(), offset) != -1
        stream.close()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("file", "spare"):
        (folder / name).write_bytes(b"x" * 5000)
    return folder


@pytest.mark.parametrize("change", CHANGES)
def test_what_this_process_has_open_is_found(folder, change):
    with in_use.watching() as found, (folder / "file").open("rb"):
        CHANGES[change](folder)
    assert f"has opened {folder / 'file'}" in found[0]
    assert "test_in_use:" in found[0]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_closed_is_not_found(folder, change):
    with in_use.watching() as found:
        (folder / "file").read_bytes()
        CHANGES[change](folder)
    assert found == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", ["opened", "mapped"])
def test_what_a_child_process_has_open_is_found(folder, change, way):
    command = [sys.executable, "-c", HOLD, way, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with in_use.watching() as found:
            CHANGES[change](folder)
        child.stdin.close()
    assert f"process {child.pid} has {way} {folder / 'file'}" in found[0]


def test_a_current_folder_is_found(folder):
    command = [sys.executable, "-c", HOLD, "current folder", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        with in_use.watching() as found:
            shutil.rmtree(folder)
        child.stdin.close()
    assert f"has current_folder {folder}" in found[0]


def test_a_mapped_file_that_is_written_anew_is_found(folder):
    with in_use.watching() as found:
        with (folder / "file").open("rb") as stream:
            memory = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        (folder / "file").write_bytes(b"y")
        memory.close()
        (folder / "file").write_bytes(b"z")
    (finding,) = found
    assert "open of" in finding
    assert f"has mapped {folder / 'file'}" in finding


def test_a_listing_that_is_not_over_is_found(folder):
    with in_use.watching() as found, os.scandir(folder) as entries:
        next(entries)
        folder.rename(folder.with_name("other"))
    assert len(found) == 1
