"""The store: whole or not there, done once, and one line when the disk says no."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from phi3_core.errors import ModelError, StoreError
from phi3_core.models import manifest
from phi3_core.models.store import Form, Store

INT4 = Form(backend="acme", precision="int4")


def fill(folder: Path) -> dict[str, object]:
    (folder / "weights.bin").write_bytes(b"w" * 1000)
    (folder / "deep").mkdir()
    (folder / "deep" / "file.json").write_text("{}", encoding="utf-8")
    return {"quality": None, "tools": {"x": "1"}}


def make(store: Store, filler=fill):
    return store.make_artifact("m", INT4, filler)


def test_an_artifact_is_found_again_with_all_that_its_manifest_says(home):
    made = make(Store())
    found = Store().artifact("m", INT4)
    assert found == made
    assert found.path == home / "artifacts" / "m" / "acme-int4"
    assert found.manifest["files"]["weights.bin"]["size"] == 1000
    assert set(found.manifest["files"]) == {"weights.bin", "deep/file.json"}
    assert found.manifest["tools"]["x"] == "1"
    (entry,) = Store().entries()
    assert (entry.model, entry.backend, entry.precision, entry.size_bytes) == ("m", "acme", "int4", 1002)
    assert Store().artifact("m", Form(backend="acme", precision="int8")) is None
    assert Store().source("m") is None


def test_what_is_there_is_not_made_again(home):
    make(Store())
    make(Store(), lambda _: pytest.fail("made twice"))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ModelError])
def test_what_fails_halfway_is_never_seen(home, error):
    def half(folder: Path):
        fill(folder)
        raise error("no")

    with pytest.raises(error):
        make(Store(), half)
    assert Store().entries() == []
    assert Store().artifact("m", INT4) is None
    assert [path for path in (home / "staging").iterdir() if path.is_dir()] == []
    assert make(Store()).manifest["files"]


KILLED = """
import os, sys
from phi3_core.models.store import Form, Store
def fill(folder):
    (folder / "weights.bin").write_bytes(b"half")
    os._exit(9)
Store().make_artifact("m", Form(backend="acme", precision="int4"), fill)
"""


def test_what_a_killed_process_left_is_cleared_away(home):
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == 9
    assert Store().entries() == []
    assert make(Store()).manifest["files"]["weights.bin"]["size"] == 1000


def test_two_at_once_do_the_work_once(home):
    calls = []
    started = threading.Barrier(2)

    def slow(folder: Path):
        calls.append(folder)
        threading.Event().wait(0.3)
        return fill(folder)

    def run():
        started.wait()
        make(Store(), slow)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


@pytest.mark.parametrize("harm", ["shorter", "missing"])
def test_a_damaged_file_is_named(home, harm):
    folder = make(Store()).path
    if harm == "shorter":
        (folder / "weights.bin").write_bytes(b"w" * 999)
    else:
        (folder / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"weights\.bin") as caught:
        Store().artifact("m", INT4)
    assert caught.value.hint == "phi3 models rm m, then pull it again"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "files": 3, "digest": "x"}', '{"format": 99}'])
def test_a_damaged_manifest_is_named_and_can_be_removed(home, text):
    folder = make(Store()).path
    (folder / manifest.NAME).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="phi3.json"):
        Store().artifact("m", INT4)
    (entry,) = Store().entries()
    Store().remove(entry)
    assert Store().entries() == []


def test_a_manifest_of_a_later_format_asks_for_an_update(home):
    folder = make(Store()).path
    file = folder / manifest.NAME
    file.write_text(file.read_text(encoding="utf-8").replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(ModelError, match="update phi3-core"):
        Store().artifact("m", INT4)


@pytest.mark.parametrize("name", ["../weights.bin", "/etc/hostname", "C:/x", "deep/../../x", "a\\\\b"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(home, name):
    folder = make(Store()).path
    file = folder / manifest.NAME
    file.write_text(file.read_text(encoding="utf-8").replace("weights.bin", name), encoding="utf-8")
    with pytest.raises(ModelError, match="leads out of its folder"):
        Store().artifact("m", INT4)


def test_removing_takes_what_was_derived_along(home):
    artifact = make(Store())
    derived = Store().derive(artifact.manifest["digest"], "acme-x", fill)
    assert derived.is_dir()
    (entry,) = Store().entries()
    Store().remove(entry)
    assert not derived.exists()
    assert not artifact.path.parent.exists()


def test_a_home_that_is_a_file_is_one_line_with_a_hint(home):
    home.write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        make(Store())
    assert "PHI3_HOME" in caught.value.hint


def test_a_full_disk_is_one_line_and_leaves_nothing(make_disk):
    folder = make_disk(256 * 2**10)

    def large(target: Path):
        (target / "weights.bin").write_bytes(b"w" * 2**20)
        return {}

    with pytest.raises(StoreError, match="no space is left"):
        make(Store(folder), large)
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert make(Store(folder)).manifest["files"]


def test_a_read_only_store_can_be_read(make_disk, make_read_only):
    folder = make_disk(256 * 2**10)
    made = make(Store(folder))
    make_read_only(folder)
    assert Store(folder).artifact("m", INT4) == made
    with pytest.raises(StoreError, match="read-only"):
        Store(folder).make_artifact("m", Form(backend="acme", precision="int8"), fill)
