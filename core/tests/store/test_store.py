"""The store: whole or not there, done once, and one line when the disk says no."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from phi3_core import files, paths, windows
from phi3_core.errors import DiskFullError, ModelError, StoreError, UsageError
from phi3_core.store import export, manifest
from phi3_core.store.entry import ArtifactKey
from phi3_core.store.locking import store_errors
from phi3_core.store.store import PARTIAL, Store
from phi3_core.toolchains import toolchain
from system_errors import windows_error

INT4 = ArtifactKey(backend="acme", precision="int4")


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
    assert Store().artifact("m", ArtifactKey(backend="acme", precision="int8")) is None
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
from phi3_core.store.store import PARTIAL, ArtifactKey, Store
def fill(folder):
    (folder / "weights.bin").write_bytes(b"half")
    os._exit(9)
Store().make_artifact("m", ArtifactKey(backend="acme", precision="int4"), fill)
"""


def test_what_a_killed_process_left_is_cleared_away(home):
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == 9
    assert Store().entries() == []
    assert make(Store()).manifest["files"]["weights.bin"]["size"] == 1000


def test_what_a_killed_process_left_is_cleared_away_when_something_else_is_made(home):
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == 9
    staging = home / "staging"
    (staging / "removed-0123456789abcdef-1").mkdir()
    (staging / "sources-other" / PARTIAL).mkdir(parents=True)
    Store().make_source("another", fill)
    assert [path.name for path in staging.iterdir() if path.is_dir()] == ["sources-other"]


def test_what_another_process_is_making_is_left_alone(home):
    def meanwhile(folder: Path):
        facts = fill(folder)
        Store().make_source("another", fill)
        return facts

    assert make(Store(), meanwhile).manifest["files"]["weights.bin"]["size"] == 1000


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
    assert caught.value.hint == "phi3 models rm m --backend acme --precision int4, then obtain it again"


def test_what_is_derived_is_made_anew_when_it_is_damaged(home):
    folder = Store().derive("0123456789abcdef", "made", fill)
    (folder / "weights.bin").unlink()
    assert Store().derive("0123456789abcdef", "made", fill) == folder
    assert (folder / "weights.bin").stat().st_size == 1000


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows stores any characters in names")
def test_a_manifest_that_names_what_no_file_can_be_called_is_refused(home):
    folder = make(Store()).path
    file = folder / manifest.NAME
    file.write_text(file.read_text(encoding="utf-8").replace("weights.bin", r"weights\ud800.bin"), encoding="utf-8")
    with pytest.raises(ModelError, match="which no file can be called"):
        Store().artifact("m", INT4)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have Unicode for names")
def test_a_file_whose_name_is_not_utf8_is_stored(home):
    name = os.fsdecode(b"weights\xff.bin")

    def fill(folder):
        (folder / name).write_bytes(b"x")
        return {}

    made = Store().make_artifact("m", INT4, fill)
    assert name in made.manifest["files"]
    found = Store().artifact("m", INT4)
    assert found is not None
    assert manifest.damaged(found.path, found.manifest) == {}


def test_removing_takes_what_was_derived_along(home):
    artifact = make(Store())
    derived = Store().derive(artifact.manifest["digest"], "acme-x", fill)
    assert derived.is_dir()
    (entry,) = Store().entries()
    Store().remove(entry)
    assert not derived.exists()
    assert not artifact.path.parent.exists()


@pytest.mark.parametrize("name", ["../m", "M", "m.", "m ", "C:m", "nul", "a/b", "..", ""])
def test_only_names_that_mean_one_model_on_every_system_are_written(home, name):
    make(Store())
    with pytest.raises(ModelError, match="cannot be stored as"):
        Store().make_artifact(name, INT4, fill)
    with pytest.raises(ModelError, match="cannot be stored as"):
        Store().make_source(name, fill)
    assert Store().artifact(name, INT4) is None
    assert Store().source(name) is None
    assert Store().source_digest(name) == ""
    assert not Store().knows(name)
    assert [entry.model for entry in Store().entries()] == ["m"]


def test_long_names_are_short_while_in_the_making(home):
    names = []

    def note(folder: Path):
        names.append(folder.name)
        return fill(folder)

    for last in "ab":
        Store().make_artifact("x" * 150 + last, INT4, note)
    assert max(map(len, names)) <= 80
    assert len(set(names)) == 2


HOLD = "import sys; stream = open(sys.argv[1], 'rb'); print('ready', flush=True); sys.stdin.read()"


@pytest.mark.skipif(sys.platform != "win32", reason="other systems remove open files")
@pytest.mark.parametrize("what", ["the weights", "derived data"])
def test_a_model_in_use_is_said_to_be_in_use_and_stays_whole(home, run_main, monkeypatch, what):
    monkeypatch.setattr(files, "LIMIT_S", 0.2)
    artifact = make(Store())
    derived = Store().derive(artifact.manifest["digest"], "acme-x", fill)
    held = (artifact.path if what == "the weights" else derived) / "weights.bin"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(held)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        program.stdout.readline()
        code, _, err = run_main("models", "rm", "m")
        assert code == 4
        (line,) = err.splitlines()
        assert f"is in use by another program, which has {held} open (end the program" in line
        with pytest.raises(StoreError, match="in use by another program"):  # before the work
            Store().make_artifact("m", INT4, lambda _: pytest.fail("made"), wanted=lambda _: False)
        assert run_main("models", "verify", "m")[0] == 0
        assert manifest.damaged(derived, manifest.read(derived)) == {}
        program.stdin.close()
    assert run_main("models", "rm", "m")[0] == 0
    assert Store().entries() == []
    assert not derived.exists()


def test_what_cannot_be_renamed_stays_with_its_derived_data(home, monkeypatch):
    artifact = make(Store())
    derived = Store().derive(artifact.manifest["digest"], "acme-x", fill)
    rename = Path.replace

    def refuse(path, target):
        if path == artifact.path:
            raise windows_error(5, str(path), str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(files, "LIMIT_S", 0.2)
    (entry,) = Store().entries()
    with pytest.raises(StoreError, match="acme-int4 is in use by another program") as caught:
        Store().remove(entry)
    assert "end the program" in caught.value.hint
    assert Store().artifact("m", INT4) == artifact
    assert manifest.damaged(derived, manifest.read(derived)) == {}
    assert [path for path in (home / "staging").iterdir() if path.is_dir()] == []


@pytest.mark.skipif(sys.platform != "win32", reason="other systems allow paths of thousands of characters")
def test_a_path_that_is_too_long_is_said_to_be_too_long(home, monkeypatch):
    if windows.long_paths_enabled():
        pytest.skip("long paths are enabled")
    assert windows.is_too_long(home, 250)
    assert not windows.is_too_long(Path("C:/x"), 255)
    assert not windows.is_too_long(Path("//?/C:/x"), 300)
    long = home / ("x" * 200) / ("y" * 50)
    words = f"has {len(str(long))} characters, and Windows is set to allow 259"
    with pytest.raises(StoreError, match=words), store_errors(home):
        raise windows_error(3, str(long))
    monkeypatch.setenv("PHI3_HOME", str(home / ("x" * 100)))
    assert "paths of up to" in toolchain.path_problem()


def test_a_home_of_a_user_that_does_not_exist_is_one_line(monkeypatch, run_main):
    if sys.platform == "win32":
        pytest.skip("Windows does not know which users exist")
    monkeypatch.setenv("PHI3_HOME", "~nobody-of-this-name/x")
    code, _, err = run_main("models", "list")
    assert code == 2
    assert "PHI3_HOME is '~nobody-of-this-name/x'" in err


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

    with pytest.raises(DiskFullError, match="no space is left"):
        make(Store(folder), large)
    assert [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert make(Store(folder)).manifest["files"]


def test_a_read_only_store_can_be_read(make_disk, make_read_only):
    folder = make_disk(256 * 2**10)
    made = make(Store(folder))
    make_read_only(folder)
    assert Store(folder).artifact("m", INT4) == made
    with pytest.raises(StoreError, match="read-only"):
        Store(folder).make_artifact("m", ArtifactKey(backend="acme", precision="int8"), fill)


QUALITY = {"tokens": 2, "perplexity_reference": 1.0, "perplexity": 1.0, "kl_mean": 0, "kl_p99": 0, "top1_agreement": 1}
EDITS = [
    {"format": 2},
    {"format": "1"},
    {"digest": ""},
    {"digest": "../../sources"},
    {"files": {"config.json": {}}},
    {"files": {"config.json": 7}},
    {"files": {"weights.bin": {"size": "1000", "sha256": "0" * 64}}},
    {"source": "x"},
    {"source": {"repository": 7}},
    {"quality": "good"},
    {"quality": {"a": 1}},
    {"quality": {**QUALITY, "perplexity": "x"}},
    {"precision": 4},
]


def edit(folder: Path, changes: dict[str, object]) -> None:
    content = paths.read_json(folder / manifest.NAME)
    paths.write_json(folder / manifest.NAME, {**content, **changes})


@pytest.mark.parametrize("changes", EDITS, ids=str)
def test_an_edited_manifest_is_a_damaged_one_and_the_others_are_still_listed(home, run_main, changes):
    folder = make(Store()).path
    Store().make_source("other", fill)
    edit(folder, changes)
    with pytest.raises(ModelError, match="phi3.json") as caught:
        manifest.read(folder)
    assert caught.value.hint
    with pytest.raises(ModelError, match="phi3.json"):
        Store().artifact("m", INT4)
    assert [bool(entry.manifest.get("damaged")) for entry in Store().entries()] == [True, False]
    code, out, _ = run_main("models", "list")
    assert code == 0
    assert "damaged" in next(line for line in out.splitlines() if "acme" in line)
    assert run_main("models", "show", "m")[0] == 0
    code, out, _ = run_main("models", "verify", "m")
    assert code == 4
    assert "phi3.json is damaged" in out


@pytest.mark.parametrize("changes", [{"precision": "int8"}, {"digest": "0" * 64}], ids=str)
def test_verify_finds_what_does_not_fit_the_rest(home, run_main, changes):
    edit(make(Store()).path, changes)
    code, out, _ = run_main("models", "verify", "m")
    assert code == 4
    assert "phi3.json is damaged" in out


def test_a_manifest_may_say_more_than_is_known(home, run_main):
    edit(make(Store()).path, {"mood": "good", "quality": {**QUALITY, "more": "x"}, "source": {"x": 1}})
    assert Store().artifact("m", INT4) is not None
    assert run_main("models", "verify", "m")[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_manifest_can_be_read_by_whom_its_files_can_be_read(home):
    folder = make(Store()).path
    assert (folder / manifest.NAME).stat().st_mode == (folder / "weights.bin").stat().st_mode


@pytest.fixture
def made(home) -> Path:
    return make(Store()).path


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_is_whole(made, tmp_path, there):
    target = tmp_path / "copy"
    if there:
        target.mkdir()
    export.check(target)
    export.copy(made, target)
    assert manifest.damaged(target, manifest.read(target)) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "home"]


def test_a_single_file_is_copied_into_the_folder(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    export.copy(tmp_path / "m.gguf", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy" / "m.gguf").read_bytes() == b"GGUF"


@pytest.mark.parametrize("there", [False, True])
def test_a_copy_that_fails_is_one_line_and_leaves_nothing(made, tmp_path, monkeypatch, there):
    target = tmp_path / "copy"
    if there:
        target.mkdir()

    def full(source, place):
        Path(place).write_bytes(b"half")
        if Path(place).name == manifest.NAME:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export.shutil, "copyfile", full)
    with pytest.raises(DiskFullError, match="no space is left on the disk of .*copy") as caught:
        export.copy(made, target)
    assert str(made) in caught.value.hint
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["copy"] * there
    assert not there or list(target.iterdir()) == []


@pytest.mark.parametrize("where", ["file/x", "file", "home/x", "home/artifacts/m/new"])
def test_an_output_that_cannot_be_is_refused_before_the_work(home, run_main, tmp_path, where):
    (tmp_path / "file").write_text("", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    code, _, err = run_main("quantize", "nonsense", "-p", "int4", "--output", tmp_path / where)
    assert code == 2
    (line,) = err.splitlines()
    assert "unexpected" not in line
    assert line.endswith(")")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that cannot be written even by root")
def test_an_output_where_nothing_can_be_written_is_refused():
    with pytest.raises(UsageError, match="cannot be written"):
        export.check(Path("/proc/foo"))
