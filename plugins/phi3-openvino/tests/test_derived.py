"""Files derived from an artifact, when several processes make them at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from phi3_core.values import Artifact
from phi3_openvino import converting
from phi3_openvino.derived import publish

NAMES = ("model.bin", "model.xml")
HOLD = "import sys; stream = open(sys.argv[1], 'rb'); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def staging(tmp_path):
    staging = tmp_path / "staging"
    staging.mkdir()
    for name in NAMES:
        (staging / name).write_text("new", encoding="utf-8")
    return staging


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def contents(folder):
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


@pytest.mark.parametrize("before", [{}, {"model.bin": "of a killed process"}])
def test_what_is_not_complete_is_published(staging, folder, before):
    for name, text in before.items():
        (folder / name).write_text(text, encoding="utf-8")
    publish(staging, folder, NAMES)
    assert contents(folder) == dict.fromkeys(NAMES, "new")


def test_what_another_process_published_stays(staging, folder):
    for name in NAMES:
        (folder / name).write_text("theirs", encoding="utf-8")
    publish(staging, folder, NAMES)
    assert contents(folder) == dict.fromkeys(NAMES, "theirs")


def refuse(path, target):
    raise PermissionError(13, "Access is denied", str(path), 5, str(target))


def test_what_another_process_publishes_meanwhile_and_has_loaded_will_do(staging, folder, monkeypatch):
    def meanwhile(path, target):
        for name in NAMES:
            (folder / name).write_text("theirs", encoding="utf-8")
        refuse(path, target)

    monkeypatch.setattr(Path, "replace", meanwhile)
    publish(staging, folder, NAMES)
    assert contents(folder) == dict.fromkeys(NAMES, "theirs")


def test_a_folder_that_may_not_be_written_is_an_error(staging, folder, monkeypatch):
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        publish(staging, folder, NAMES)


@pytest.mark.skipif(os.name != "nt", reason="other systems replace open files")
def test_a_process_that_has_loaded_what_it_published_is_no_obstacle_on_windows(staging, folder):
    held = folder / NAMES[0]
    held.write_text("theirs", encoding="utf-8")
    command = [sys.executable, "-c", HOLD, str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        program.stdout.readline()
        complete = threading.Timer(0.5, (folder / NAMES[1]).write_text, ["theirs", "utf-8"])
        complete.start()
        publish(staging, folder, NAMES)
        complete.join()
        program.stdin.close()
    assert contents(folder) == dict.fromkeys(NAMES, "theirs")


def test_a_gguf_file_in_a_folder_of_another_script_is_converted(sample_store, model, tmp_path, monkeypatch):
    """OpenVINO GenAI opens it by a relative path, since Windows' code pages have not all letters."""
    (file,) = (sample_store / "artifacts" / "sample" / "openvino-int4").glob("*.gguf")
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "王小明" / "мой"))
    before = Path.cwd()
    artifact = Artifact(path=file, backend="openvino", precision="int4", manifest={"digest": "0123456789abcdef"})
    with converting.loadable(file, artifact) as source:
        assert sorted(path.name for path in source.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]
        assert not str(source).isascii()
    assert Path.cwd() == before


def no_link(*paths):
    raise OSError(22, "A required privilege is not held by the client")


@pytest.mark.parametrize("links", ["both", "hard", "none"])
def test_a_gguf_file_loads_whatever_links_there_are(sample_store, model, make_disk, monkeypatch, caplog, links):
    """Without a symbolic link it has a second name, and if there is neither that nor room for a copy its own."""
    (file,) = (sample_store / "artifacts" / "sample" / "openvino-int4").glob("*.gguf")
    home = make_disk(file.stat().st_size * 3 if links == "both" else file.stat().st_size * 5 // 2)
    beside = home / "of a user.gguf"
    shutil.copyfile(file, beside)
    if links != "both":
        monkeypatch.setattr(os, "symlink", no_link)
    if links == "none":
        monkeypatch.setattr(os, "link", no_link)
        (home / "filled").write_bytes(bytes(file.stat().st_size))
    monkeypatch.setenv("PHI3_HOME", str(home / "store"))
    artifact = Artifact(path=beside, backend="openvino", precision="int4", manifest={"digest": "0123456789abcdef"})
    with converting.loadable(beside, artifact) as source:
        if links == "none":
            assert source == beside
            assert "no space left on device: the converted model is not kept" in caplog.text
        else:
            assert sorted(path.name for path in source.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]
    assert beside.stat().st_nlink == 1
    assert not list(home.rglob("model.gguf"))


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX's limit on the size of files")
def test_a_full_disk_costs_what_would_be_kept_and_not_the_answer(sample_needed, home):
    import resource

    command = [sys.executable, "-m", "phi3_core", "run", "-m", "sample", "-d", "openvino:CPU", "--max-new-tokens", "8"]

    def run(limit):
        return subprocess.run(
            [*command, "What is the capital of France?"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    full = run(40_000_000)
    assert (full.returncode, full.stdout) == (0, "The capital of France is Paris.\n"), full.stderr
    assert "file too large: the converted model is not kept" in full.stderr
    assert not list(home.rglob("openvino_model.xml"))
    again = run(resource.RLIM_INFINITY)
    assert (again.returncode, again.stdout) == (0, "The capital of France is Paris.\n"), again.stderr
    assert list(home.rglob("openvino_model.xml"))
