"""Models that other programs have downloaded into the hub's own cache, here with the real client."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

import huggingface_hub
from phi3_core.errors import ModelError
from phi3_core.hub import cache, fetch
from phi3_core.hub.address import Address
from phi3_core.hub.snapshot import RemoteFile
from stand_in_hub import support

REPOSITORY = support.REPOSITORY
ADDRESS = Address(repository=REPOSITORY)
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="the cache has no links here")


@pytest.fixture(autouse=True)
def hub_cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "hub-cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def put(server, hub_cache: Path, **how) -> Path:
    """Let the hub's client download a repository into the cache, and return the snapshot's folder."""
    repository = how.pop("repository", REPOSITORY)
    api = huggingface_hub.HfApi(endpoint=server.url)
    # Side by side, the client's threads take files of the same content from each other where there are no links.
    found = Path(api.snapshot_download(repository, cache_dir=hub_cache, max_workers=1, **how))
    server.requests.clear()
    return found


def take(folder: Path, address: Address = ADDRESS, *, offline: bool = True, update: bool = False) -> dict[str, bytes]:
    """Fill a folder as the store does, and return what is in it."""
    snapshot, files = fetch.listed(address, offline=offline, update=update)
    folder.mkdir()
    fetch.fill(snapshot, files, folder, support.ignore, offline=offline)
    shutil.rmtree(folder / fetch.PARTIAL)
    return support.content(folder)


def without_links(folder: Path) -> None:
    """Turn a repository's folder into what the client makes on systems without links."""
    for link in [path for path in (folder / "snapshots").rglob("*") if path.is_symlink()]:
        real = link.resolve()
        link.unlink()
        shutil.copyfile(real, link)
    shutil.rmtree(folder / "blobs")


def test_a_whole_snapshot_is_linked_offline(server, commit, hub_cache, tmp_path) -> None:
    held = put(server, hub_cache)
    assert take(tmp_path / "model") == support.checkpoint()
    assert not server.requests
    assert (tmp_path / "model" / support.LARGE).samefile((held / support.LARGE).resolve())
    assert not (tmp_path / "model" / "config.json").samefile((held / "config.json").resolve())  # people edit these
    shutil.rmtree(hub_cache)
    assert support.content(tmp_path / "model") == support.checkpoint()


def test_it_is_linked_when_the_hub_can_be_asked_too(server, commit, hub_cache, tmp_path) -> None:
    put(server, hub_cache)
    assert take(tmp_path / "model", offline=False) == support.checkpoint()
    assert not support.asked_for(server)


@pytest.mark.parametrize("change", ["links", "refs", "both"])
def test_a_cache_of_other_systems_and_programs(server, commit, hub_cache, tmp_path, change) -> None:
    top = put(server, hub_cache).parents[1]
    if change != "links":
        shutil.rmtree(top / "refs")
    if change != "refs":
        without_links(top)
    assert take(tmp_path / "model") == support.checkpoint()
    assert not server.requests


def test_what_cannot_be_linked_is_copied(server, commit, hub_cache, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    held = put(server, hub_cache)
    monkeypatch.setattr(os, "link", refuse)
    assert take(tmp_path / "model") == support.checkpoint()
    assert not (tmp_path / "model" / support.LARGE).samefile(held / support.LARGE)


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_the_client_has_it(tmp_path, monkeypatch, name) -> None:
    import subprocess

    for other in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("OTHER", "other")
    if name != "HOME":
        monkeypatch.setenv(name, f"~/$OTHER/{name}")
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert cache.root() == Path(theirs).absolute()


@needs_links
def test_what_is_not_whole_is_named_and_completed(server, commit, hub_cache, tmp_path, caplog) -> None:
    held = put(server, hub_cache)
    blob = (held / support.LARGE).resolve()
    blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    with pytest.raises(ModelError, match=f"not whole: {support.LARGE} is missing, and offline mode") as caught:
        take(tmp_path / "model")
    assert str(held) in str(caught.value)
    with caplog.at_level("INFO", logger="phi3_core"):
        assert take(tmp_path / "other", offline=False) == support.checkpoint()
    assert f"{support.LARGE} is missing; completing it from the hub" in caplog.text
    assert support.asked_for(server) == {support.LARGE}


def test_what_the_cache_cannot_tell_is_completed(server, commit, hub_cache, tmp_path) -> None:
    put(server, hub_cache, ignore_patterns=["chat_template.jinja"])
    assert take(tmp_path / "model", offline=False) == support.checkpoint()
    assert support.asked_for(server) == {"chat_template.jinja"}


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model-00002-of-00002.safetensors"])
def test_files_that_every_model_needs_are_missed(server, commit, hub_cache, tmp_path, name) -> None:
    put(server, hub_cache, ignore_patterns=[name])
    with pytest.raises(ModelError, match=f"not whole: {name} is missing"):
        take(tmp_path / "model")


def test_files_that_an_index_names_are_missed(server, hub_cache, tmp_path) -> None:
    index = json.dumps({"weight_map": {"a": "first.safetensors", "b": "second.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "first.safetensors": b"1", "second.safetensors": b"2"}
    server.add(REPOSITORY, {"config.json": b"{}", "tokenizer.json": b"{}", **files})
    put(server, hub_cache, ignore_patterns=["second*"])
    with pytest.raises(ModelError, match=r"second\.safetensors is missing"):
        take(tmp_path / "model")


def test_files_that_a_graph_names_are_missed(server, hub_cache, tmp_path) -> None:
    graph = b"\x08\x0aij\x0a\x08location\x12\x0fmodel.onnx.dataj"
    ir = {"openvino_model.xml": b"<net/>", "openvino_model.bin": b"1"}
    server.add(REPOSITORY, {"tokenizer.json": b"{}", "o/model.onnx": graph, "o/model.onnx.data": b"1", **ir})
    put(server, hub_cache, ignore_patterns=["*.data", "*.bin"])
    onnx = Address(repository=REPOSITORY, path="o")
    with pytest.raises(ModelError, match=r"o/model\.onnx\.data is missing"):
        take(tmp_path / "model", onnx)
    with pytest.raises(ModelError, match=r"openvino_model\.bin is missing"):
        take(tmp_path / "model")
    put(server, hub_cache)
    assert set(take(tmp_path / "onnx", onnx)) == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    assert set(take(tmp_path / "ir")) == {"openvino_model.xml", "openvino_model.bin", "tokenizer.json"}


@needs_links
def test_a_damaged_file_is_not_used(server, commit, hub_cache, tmp_path, caplog) -> None:
    blob = (put(server, hub_cache) / support.LARGE).resolve()
    content = bytearray(blob.read_bytes())
    content[1000] ^= 1
    blob.write_bytes(content)
    with pytest.raises(ModelError, match="offline mode is on"):
        take(tmp_path / "model")
    assert f"{blob} is damaged, and is not used" in caplog.text
    assert take(tmp_path / "other", offline=False) == support.checkpoint()
    assert support.asked_for(server) == {support.LARGE}


def test_revisions(server, commit, hub_cache, tmp_path) -> None:
    put(server, hub_cache)
    tag = server.add(
        REPOSITORY, support.checkpoint() | {"config.json": b'{"model_type": "phi3", "new": 1}'}, branch="v2"
    )
    put(server, hub_cache, revision="v2")
    for number, revision in enumerate(("v2", tag, tag[:8])):
        found = take(tmp_path / f"{number}", Address(repository=REPOSITORY, revision=revision))
        assert b"new" in found["config.json"]
    assert b"new" not in take(tmp_path / "main")["config.json"]
    with pytest.raises(ModelError, match="not at v3") as caught:
        take(tmp_path / "model", Address(repository=REPOSITORY, revision="v3"))
    assert f"{REPOSITORY}@{min(commit, tag)}" in caught.value.hint
    shutil.rmtree(next(hub_cache.glob("models--*")) / "refs")
    with pytest.raises(ModelError, match="not at main"):
        take(tmp_path / "model")
    assert not server.requests


def test_a_newer_commit_is_for_updates(server, commit, hub_cache, tmp_path) -> None:
    put(server, hub_cache)
    newer = server.add(REPOSITORY, support.checkpoint() | {"config.json": b'{"model_type": "phi3", "new": 1}'})
    assert b"new" not in take(tmp_path / "model", offline=False)["config.json"]
    assert b"new" in take(tmp_path / "newer", offline=False, update=True)["config.json"]
    assert support.asked_for(server) == {"config.json"}
    assert fetch.listed(ADDRESS, offline=False, update=True)[0].commit == newer


def test_a_hub_that_is_gone_or_refuses(server, commit, hub_cache, tmp_path, caplog) -> None:
    put(server, hub_cache)
    server.fault("api", status=403)
    with caplog.at_level("INFO", logger="phi3_core"):
        assert take(tmp_path / "model", offline=False) == support.checkpoint()
    assert "requires accepting its licence; using the hub's cache" in caplog.text
    server.stop()
    assert take(tmp_path / "other", offline=False) == support.checkpoint()


@pytest.fixture
def looked_at(server, commit, hub_cache) -> tuple[Path, Path]:
    """The whole older snapshot, and that of main, of which only the tokenizer was looked at."""
    whole = put(server, hub_cache)
    server.add(REPOSITORY, support.checkpoint() | {"tokenizer.json": b"{}"})
    return whole, put(server, hub_cache, allow_patterns=["tokenizer.json"])


def test_an_older_commit_that_is_whole_is_taken_offline(looked_at, server, commit, hub_cache, tmp_path, caplog) -> None:
    whole, newer = looked_at
    with caplog.at_level("INFO", logger="phi3_core"):
        assert take(tmp_path / "model") == support.checkpoint()
    assert f"using the hub's cache in {whole}" in caplog.text
    assert fetch.listed(ADDRESS, offline=True)[0].commit == commit
    with pytest.raises(ModelError, match="is not whole"):
        fetch.listed(Address(repository=REPOSITORY, revision=newer.name), offline=True)
    assert not server.requests
    newest = shutil.copytree(whole, whole.with_name("f" * 40), symlinks=True)
    os.utime(newest, (newest.stat().st_atime, whole.stat().st_mtime + 5))
    assert fetch.listed(ADDRESS, offline=True)[0].commit == newest.name
    assert fetch.cached(ADDRESS, offline=True)
    assert not fetch.cached(ADDRESS)
    for other in (whole, newest):
        (other / support.LARGE).unlink()
    with pytest.raises(ModelError, match=f"{newer.name} is not whole"):
        take(tmp_path / "other")


def test_an_older_commit_is_taken_when_the_hub_is_gone(looked_at, server, commit, tmp_path, caplog) -> None:
    whole, newer = looked_at
    assert fetch.listed(ADDRESS, offline=False)[0].commit == newer.name
    server.stop()
    with caplog.at_level("INFO", logger="phi3_core"):
        assert take(tmp_path / "model", offline=False) == support.checkpoint()
    assert f"using the hub's cache in {whole}" in caplog.text


def test_a_folder_of_the_cache_with_an_older_whole_commit(looked_at, home, run_main) -> None:
    whole, newer = looked_at
    code, out, err = run_main("models", "show", str(whole.parents[1]), "--json")
    assert (code, json.loads(out)["path"]) == (0, str(whole)), err
    assert json.loads(run_main("models", "show", str(whole.parents[1] / "refs" / "main"), "--json")[1])["path"] == str(
        newer
    )


def test_names_in_other_case(server, commit, hub_cache, tmp_path) -> None:
    put(server, hub_cache)
    assert take(tmp_path / "model", Address(repository=REPOSITORY.upper())) == support.checkpoint()


def test_a_cache_that_is_not_there_or_cannot_be_read(server, commit, hub_cache, tmp_path, monkeypatch) -> None:
    assert take(tmp_path / "model", offline=False) == support.checkpoint()
    hub_cache.write_text("a file", encoding="utf-8")
    assert take(tmp_path / "other", offline=False) == support.checkpoint()
    with pytest.raises(ModelError, match="offline mode is on"):
        take(tmp_path / "offline")
    monkeypatch.setattr(cache, "root", lambda: None)  # no home folder
    assert take(tmp_path / "again", offline=False) == support.checkpoint()


def test_a_file_of_another_repository_is_not_taken(server, commit, hub_cache) -> None:
    put(server, hub_cache)
    file = RemoteFile(name="config.json", size=len(b'{"model_type": "phi3"}'))
    assert list(cache.copies(REPOSITORY, commit, file))
    assert not list(cache.copies("acme/other", commit, file))
    assert not list(cache.copies(REPOSITORY, "f" * 40, file))  # of unknown content at another commit


@pytest.mark.parametrize("where", [".", "snapshots", "refs", "refs/main", "blobs", "snapshots/*"])
def test_folders_of_the_cache_are_understood(server, commit, hub_cache, home, run_main, where) -> None:
    held = put(server, hub_cache)
    (given,) = held.parents[1].glob(where) if where != "." else [held.parents[1]]
    code, out, err = run_main("models", "show", str(given), "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["form"], found["path"], found["model"]) == ("source", str(held), "acme--phi")


def test_a_folder_of_the_cache_with_several_snapshots(server, commit, hub_cache, home, run_main) -> None:
    held = put(server, hub_cache)
    shutil.copytree(held, held.with_name("f" * 40), symlinks=True)
    assert run_main("models", "show", str(held.parents[1]))[0] == 0  # what main refers to
    (held.parents[1] / "refs" / "main").unlink()
    code, _, err = run_main("models", "show", str(held.parents[1]))
    assert code == 4
    assert "holds several snapshots" in err
    assert f"name one of them: {held.parent}" in err
    code, _, err = run_main("models", "show", str(hub_cache))
    assert code == 4
    assert f"has its weights in folders: models--acme--phi/snapshots/{held.name}" in err
    shutil.rmtree(held.parent)
    held.parent.mkdir()
    code, _, err = run_main("models", "show", str(held.parents[1]))
    assert code == 4
    assert "phi3 models pull acme/phi" in err


def test_a_folder_of_the_cache_without_a_snapshot(server, commit, hub_cache, home, run_main) -> None:
    folder = put(server, hub_cache).parents[1]
    shutil.rmtree(folder / "snapshots")
    code, _, err = run_main("models", "show", str(folder))
    assert code == 4
    assert f"holds no snapshot of {REPOSITORY} (phi3 models pull {REPOSITORY})" in err


@pytest.mark.skipif(sys.platform == "win32", reason="without links the snapshot has the files itself")
def test_a_blob_without_a_snapshot_is_not_fetched_again(server, commit, hub_cache, tmp_path) -> None:
    shutil.rmtree(put(server, hub_cache).parent)
    assert take(tmp_path / "taken", offline=False) == support.checkpoint()
    assert support.LARGE not in support.asked_for(server)


def test_an_unfinished_download_is_named_as_one(server, commit, hub_cache, tmp_path) -> None:
    snapshot = put(server, hub_cache)
    folder = snapshot.parents[1]
    assert cache.unfinished(snapshot) is None
    (folder / "blobs" / "12ab.incomplete").write_bytes(b"")
    assert cache.unfinished(snapshot) == (folder / "blobs" / "12ab.incomplete", f"phi3 models pull {REPOSITORY}")
    own = tmp_path / "own"
    part = own / ".cache" / "huggingface" / "download" / "sub" / "x.incomplete"
    part.parent.mkdir(parents=True)
    assert cache.unfinished(own) is None
    part.write_bytes(b"")
    assert cache.unfinished(own) == (part, f"hf download OWNER/NAME --local-dir {own.as_posix()}")
