"""Device files of Linux: who may open them, and the command that changes it."""

from __future__ import annotations

import sys

import pytest
from phi3_core.doctor.permissions import Node, findings, read_nodes


def node(**changes):
    facts = {"path": "/dev/dri/renderD128", "accessible": False, "group_id": 109, "group": "render"}
    return Node(**{**facts, "allows_group": True, "is_member": False, **changes})


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        ({}, "the user is not in the group render", "sudo usermod -aG render $USER, then log out and in again"),
        ({"is_member": True}, "this session is older than that", "log out and in again"),
        ({"group": None}, "not in the group number 109", "docker run --group-add 109"),
        ({"allows_group": False}, "its group render may not either", "sudo chmod g+rw /dev/dri/renderD128"),
        ({"group": "root", "group_id": 0}, "not in the group root", "sudo chgrp render /dev/dri/renderD128"),
    ],
)
def test_what_is_missing_and_what_gives_it(changes, words, remedy):
    (found,) = findings("linux", [node(**changes)])
    assert found.severity == "warning"
    assert found.message.startswith("/dev/dri/renderD128 may not be read and written: ")
    assert words in found.message
    assert remedy in found.remedy


def test_what_is_well():
    (found,) = findings("linux", [node(accessible=True)])
    assert (found.severity, found.remedy) == ("info", "")
    assert found.message == "/dev/dri/renderD128 may be read and written (group render)"


def test_none_and_other_systems():
    (none,) = findings("linux", [])
    assert "no driver of an NPU or a GPU is loaded" in none.message
    (windows,) = findings("windows", [])
    assert windows.message.startswith("permissions of device files do not apply: Windows")
    assert (none.severity, windows.severity) == ("info", "info")


@pytest.mark.skipif(sys.platform != "linux", reason="device files of Linux")
def test_device_files_are_found(tmp_path):
    assert read_nodes(tmp_path) == ()
    for name in ("dev/accel/accel0", "dev/dri/card0", "dev/dri/renderD128"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        file.chmod(0o660)
    (tmp_path / "dev/accel/accel0").chmod(0o600)
    npu, gpu = read_nodes(tmp_path)
    assert (npu.path, gpu.path) == ("/dev/accel/accel0", "/dev/dri/renderD128")
    assert (npu.allows_group, gpu.allows_group) == (False, True)
    assert npu.accessible
    assert npu.group_id == (tmp_path / "dev/accel/accel0").stat().st_gid
    assert npu.is_member
