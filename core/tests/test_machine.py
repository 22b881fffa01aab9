"""What makes a survey be asked anew: whatever detection depends on changes the fingerprint of the drivers."""

from __future__ import annotations

import os
import sys

import pytest
from phi3_core import machine

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="files of Linux")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A Linux with an NPU, as far as the fingerprint looks at it."""
    for folder in ("dev/accel", "sys/module/intel_vpu", "etc", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dev/accel/accel0").touch()
    (tmp_path / "sys/module/intel_vpu/srcversion").write_text("1A2B3C\n", encoding="ascii")
    (tmp_path / "etc/ld.so.cache").touch()
    (tmp_path / "proc/boot_id").write_text("first\n", encoding="ascii")
    monkeypatch.setattr(machine, "_LINUX_DEVICE_FOLDERS", (str(tmp_path / "dev/accel"),))
    monkeypatch.setattr(machine, "_LINUX_DRIVER_VERSIONS", (str(tmp_path / "sys/module/intel_vpu"),))
    monkeypatch.setattr(machine, "_LINUX_LIBRARIES", (str(tmp_path / "etc/ld.so.cache"),))
    monkeypatch.setattr(machine, "_LINUX_BOOT", str(tmp_path / "proc/boot_id"))
    return tmp_path


@linux_only
@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "dev/accel/accel0").unlink(),
        lambda root: (root / "dev/accel/accel1").touch(),
        lambda root: (root / "sys/module/intel_vpu/srcversion").write_text("4D5E6F\n", encoding="ascii"),
        lambda root: (root / "sys/module/intel_vpu/srcversion").unlink(),
        lambda root: os.utime(root / "etc/ld.so.cache", ns=(1, 1)),
        lambda root: (root / "proc/boot_id").write_text("second\n", encoding="ascii"),
    ],
    ids=["device gone", "device added", "driver updated", "driver unloaded", "library installed", "started anew"],
)
def test_what_changes_the_fingerprint(system, change):
    before = machine.driver_fingerprint()
    assert machine.driver_fingerprint() == before
    change(system)
    assert machine.driver_fingerprint() != before


@linux_only
@pytest.mark.skipif(sys.platform == "linux" and os.geteuid() == 0, reason="root may read and write everything")
def test_a_permission_changes_the_fingerprint(system):
    before = machine.driver_fingerprint()
    (system / "dev/accel/accel0").chmod(0)
    assert machine.driver_fingerprint() != before


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "SESSIONNAME"])
def test_the_environment_of_detection_changes_the_fingerprint(monkeypatch, name):
    monkeypatch.setenv(name, "one")
    before = machine.driver_fingerprint()
    monkeypatch.setenv(name, "another")
    assert machine.driver_fingerprint() != before
