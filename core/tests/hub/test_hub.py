"""Snapshots: what a repository holds, and which of it is needed and safe to have."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from phi3_core.errors import ModelError
from phi3_core.hub.download import download
from phi3_core.hub.snapshot import RemoteFile, select_files, take_snapshot
from stand_in_hub import support


def test_inspecting_resolves_a_revision_once(server, commit) -> None:
    newer = server.add(support.REPOSITORY, {"config.json": b"{}"})
    assert take_snapshot(support.REPOSITORY).commit == newer
    snapshot = take_snapshot(support.REPOSITORY, commit)
    assert snapshot.commit == commit
    files = {file.name: file for file in snapshot.files}
    assert files.keys() == support.checkpoint().keys() | support.UNWANTED.keys()
    assert files[support.LARGE].size == support.SIZE
    assert len(files[support.LARGE].sha256) == 64
    assert files["config.json"].sha256 is None
    assert len(files["config.json"].git_oid) == 40
    assert [(request.method, request.name) for request in server.requests] == [("GET", "api")] * 2


def test_wanted_takes_what_a_model_needs_and_no_code(server, commit) -> None:
    snapshot = take_snapshot(support.REPOSITORY)
    assert {file.name for file in select_files(snapshot.files)} == support.checkpoint().keys()
    assert [file.name for file in select_files(snapshot.files, "onnx")] == ["onnx/model.onnx"]
    assert [file.name for file in select_files(snapshot.files, "openvino/")] == ["openvino/openvino_model.bin"]
    more = {file.name for file in select_files(snapshot.files, also=("*.gguf", "*.py", "*.pkl"))}
    assert more == support.checkpoint().keys() | {"model.gguf"}


def test_papers_are_taken_while_they_are_small() -> None:
    files = [RemoteFile(name="README.md", size=2**21), RemoteFile(name="LICENSE.txt", size=1000)]
    assert [file.name for file in select_files(files)] == ["LICENSE.txt"]


def test_of_safetensors_the_checkpoint_is_taken() -> None:
    names = ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    files = [RemoteFile(name=f"{folder}{name}", size=2) for folder in ("", "a/") for name in names]
    assert [file.name for file in select_files(files)] == ["model.safetensors", "model.safetensors.index.json"]
    assert [file.name for file in select_files(files, "a")] == ["a/model.safetensors", "a/model.safetensors.index.json"]
    shards = [file for file in files if file.name != "model.safetensors"]
    assert [file.name for file in select_files(shards)] == names[1:]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.json", "a/../../evil.json", "/abs.json", "C:\\x.json", "C:x.json", "a\\..\\b.json", "//host/x.json"),
        *("a//b.json", "./a.json", "a\0b.json", "a\nb.json", "nul/../x.py", "..", ""),
    ],
)
def test_a_repository_with_a_name_that_leads_out_is_refused(name: str) -> None:
    files = [RemoteFile(name="config.json", size=2), RemoteFile(name=name, size=1)]
    with pytest.raises(ModelError, match="offers a file named") as caught:
        select_files(files)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["aux.json", "COM1.json", "con .json", "a?.json", "ab:c.json", "x" * 300 + ".json", "lpt9.a.json"]
)
def test_names_that_some_system_cannot_store_are_refused_if_wanted(name: str) -> None:
    with pytest.raises(ModelError, match="offers a file named"):
        select_files([RemoteFile(name=name, size=1)])
    assert not select_files([RemoteFile(name=name.removesuffix("json") + "txt", size=1)])


def test_hostile_names_from_the_hub_are_never_requested(server, tmp_path) -> None:
    server.add(support.REPOSITORY, {"config.json": b"{}", "../evil.json": b"1", "/abs.json": b"1", "C:\\x.json": b"1"})
    snapshot = take_snapshot(support.REPOSITORY)
    with pytest.raises(ModelError, match="offers a file named"):
        select_files(snapshot.files)
    with pytest.raises(ModelError, match="offers a file named"):
        download(snapshot, snapshot.files, tmp_path / "model", support.ignore)
    assert not support.asked_for(server)
    assert not list(tmp_path.iterdir())


def test_two_names_that_are_one_on_some_systems(server, tmp_path) -> None:
    server.add(support.REPOSITORY, {"config.json": b"{}", "Config.json": b"[]"})
    with pytest.raises(ModelError, match=r"[Cc]onfig.json and [Cc]onfig.json"):
        support.pull(tmp_path / "model")


@pytest.mark.parametrize(
    ("where", "how", "expected"),
    [
        ("api", {"status": 401}, "has no repository acme/phi.*HF_TOKEN"),
        ("api", {"status": 404, "code": "RepoNotFound"}, "has no repository acme/phi.*check the name"),
        ("api", {"status": 404, "code": "RevisionNotFound"}, "has no revision v9.*a tag"),
        ("api", {"status": 403}, "requires accepting its licence.*accept it at http"),
        ("api", {"status": 403, "code": ""}, "denies access.*HF_TOKEN"),
        ("api", {"status": 410}, "answers 410"),
        (support.LARGE, {"status": 401, "code": "GatedRepo"}, "requires accepting its licence.*accept it at http"),
        (support.LARGE, {"status": 403, "code": ""}, "denies access"),
        (support.LARGE, {"status": 404}, f"has no file {support.LARGE}"),
    ],
)
def test_refusals_are_one_line_with_a_hint(server, commit, tmp_path, where, how, expected) -> None:
    server.fault(where, **how)
    server.repositories[support.REPOSITORY].branches["v9"] = commit
    with pytest.raises(ModelError, match=expected) as caught:
        snapshot = take_snapshot(support.REPOSITORY, "v9")
        download(snapshot, select_files(snapshot.files), tmp_path, support.ignore)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.glob("*") if path.name == support.LARGE]


def test_what_the_hub_does_not_have(server, commit) -> None:
    with pytest.raises(ModelError, match="has no repository acme/other"):
        take_snapshot("acme/other")
    with pytest.raises(ModelError, match="has no revision v9"):
        take_snapshot(support.REPOSITORY, "v9")
    with pytest.raises(ModelError, match=r"has no folder gpu.*it has onnx, openvino"):
        take_snapshot(support.REPOSITORY, path="gpu")
    with pytest.raises(ModelError, match="cannot be a repository"):
        take_snapshot("not a repository/at all/")


def test_something_that_is_not_a_hub(server, commit) -> None:
    server.repositories[support.REPOSITORY].commits[commit] = None
    server.fault("api", status=200)
    with pytest.raises(ModelError, match="does not answer as the hub does"):
        take_snapshot(support.REPOSITORY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_ENDPOINT", "http://["),
        ("HF_TOKEN", "schlüssel"),
        ("HF_TOKEN_PATH", "."),
        ("HTTPS_PROXY", "ftp://127.0.0.1"),
        ("HTTP_PROXY", "http://" + "x" * 80),
        ("SSL_CERT_FILE", "/nowhere/at/all.pem"),
    ],
)
def test_settings_that_the_client_refuses_are_one_line_that_names_them(server, commit, name, value) -> None:
    with_requests = version("huggingface_hub").startswith("0.")
    code = f"from phi3_core.hub.snapshot import take_snapshot; take_snapshot({support.REPOSITORY!r})"
    environment = {**support.with_sources(), "NO_PROXY": "", "no_proxy": "", name: value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode == 0:
        assert with_requests
        assert name in {"HF_TOKEN", "HTTPS_PROXY", "SSL_CERT_FILE"}
        pytest.skip(f"requests takes this {name}, or does not read it")
    said = done.stderr.splitlines()[-1]
    assert said.startswith("phi3_core.errors.ModelError: the hub's client does not accept its settings: ")
    assert name in said


@pytest.mark.parametrize("switch", ["parameter", "variable"])
def test_offline_asks_nobody(server, commit, monkeypatch, switch) -> None:
    if switch == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="offline|HF_HUB_OFFLINE"):
        take_snapshot(support.REPOSITORY, offline=switch == "parameter")
    assert not server.requests


def test_importing_the_room_imports_no_client() -> None:
    code = (
        "import sys, phi3_core.hub.snapshot, phi3_core.hub.download; "
        "sys.exit(any(name in sys.modules for name in ('huggingface_hub', 'requests', 'httpx', 'httpx2', 'filelock')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=support.with_sources(), check=False).returncode == 0


def test_the_stand_in_is_one_for_the_client_s_own_download(server, commit, tmp_path) -> None:
    import huggingface_hub

    api = huggingface_hub.HfApi(endpoint=server.url)
    listed = api.list_repo_tree(support.REPOSITORY, recursive=True)
    tree = {entry.path: entry.size for entry in listed if isinstance(entry, huggingface_hub.hf_api.RepoFile)}
    assert tree == {name: len(data) for name, data in (support.checkpoint() | support.UNWANTED).items()}
    assert [entry.path for entry in api.get_paths_info(support.REPOSITORY, ["config.json"])] == ["config.json"]
    where = api.snapshot_download(
        support.REPOSITORY,
        cache_dir=tmp_path / "cache",
        local_dir=tmp_path / "model",
        ignore_patterns=list(support.UNWANTED),
    )
    assert {
        name: data for name, data in support.content(Path(where)).items() if "/" not in name
    } == support.checkpoint()
    metadata = huggingface_hub.get_hf_file_metadata(
        huggingface_hub.hf_hub_url(support.REPOSITORY, support.LARGE, endpoint=server.url)
    )
    assert (metadata.commit_hash, metadata.size) == (commit, support.SIZE)
