"""Downloads that go well, and hubs that misbehave."""

from __future__ import annotations

import hashlib
import shutil
from types import SimpleNamespace

import pytest

pytest.importorskip("huggingface_hub")

from phi3_core.errors import DiskFullError, ModelError
from phi3_core.hub import client, refusals
from phi3_core.hub.download import download
from phi3_core.hub.snapshot import select_files, take_snapshot
from stand_in_hub import support


def test_a_whole_download(server, commit, tmp_path) -> None:
    seen = []
    support.pull(tmp_path / "model", lambda *figures: seen.append(figures))
    assert support.content(tmp_path / "model") == support.checkpoint()
    nothing_to_fetch = {"empty.json"}
    assert support.asked_for(server) == support.checkpoint().keys() - nothing_to_fetch
    total = sum(map(len, support.checkpoint().values()))
    assert {figures[2] for figures in seen} == {total}
    assert seen[-1] == ("checking", total, total)
    for stage in ("downloading", "checking"):
        done = [figures[1] for figures in seen if figures[0] == stage]
        assert done == sorted(done)


def test_a_folder_becomes_the_root(server, commit, tmp_path) -> None:
    snapshot = take_snapshot(support.REPOSITORY, path="openvino/")
    download(snapshot, select_files(snapshot.files, snapshot.folder), tmp_path, support.ignore)
    assert support.content(tmp_path) == {"openvino_model.bin": support.UNWANTED["openvino/openvino_model.bin"]}


def test_nothing_is_downloaded_twice(server, commit, tmp_path) -> None:
    support.pull(tmp_path / "model")
    before = len(server.requests)
    seen = []
    support.pull(tmp_path / "model", lambda *figures: seen.append(figures))
    assert [request.name for request in server.requests[before:]] == ["api"]
    assert {figures[0] for figures in seen} == {"checking"}


def test_what_is_there_needs_no_network_but_what_is_missing_does(server, commit, tmp_path) -> None:
    snapshot = take_snapshot(support.REPOSITORY)
    download(snapshot, select_files(snapshot.files), tmp_path, support.ignore)
    before = len(server.requests)
    download(snapshot, select_files(snapshot.files), tmp_path, support.ignore, offline=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match="leave out --offline"):
        download(snapshot, select_files(snapshot.files), tmp_path, support.ignore, offline=True)
    assert len(server.requests) == before


def test_only_damaged_files_are_fetched_again(server, commit, tmp_path) -> None:
    support.pull(tmp_path)
    damaged = bytearray(support.checkpoint()[support.LARGE])
    damaged[100] ^= 1
    (tmp_path / support.LARGE).write_bytes(damaged)
    (tmp_path / "config.json").write_bytes(b'{"model_type": "evil"}')
    before = len(server.requests)
    support.pull(tmp_path)
    assert {request.name for request in server.requests[before:]} == {"api", support.LARGE, "config.json"}
    assert support.content(tmp_path) == support.checkpoint()


def test_a_disk_that_is_too_small(server, commit, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    with pytest.raises(DiskFullError, match=r"needs 3\.5 MB, and only 2\.0 MB are free in"):
        support.pull(tmp_path / "model")
    assert not support.asked_for(server)


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(server, commit, tmp_path, monkeypatch) -> None:
    server.fault("*", status=403, token="secret")
    with pytest.raises(ModelError, match="accept it at"):
        support.pull(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "secret")
    before = len(server.requests)
    server.faults["*"][0].times = 0
    support.pull(tmp_path)
    for request in server.requests[before:]:
        assert request.headers.get("authorization") == (None if "/cdn/" in request.path else "Bearer secret")
        assert "torch" not in request.headers["user-agent"]


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_a_cut_connection_is_taken_up_where_it_was_cut(server, commit, tmp_path, times) -> None:
    server.fault(support.LARGE, cut_after=2**20, times=times)
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()
    first, *others = server.bodies(support.LARGE)
    assert first.range is None
    starts = [int(request.range.removeprefix("bytes=").rstrip("-")) for request in others]
    assert len(starts) == times
    for number, start in enumerate(starts, 1):
        assert number * (2**20 - support.SLACK) <= start <= number * 2**20
    assert server.served(support.LARGE) <= support.SIZE + times * support.SLACK


def test_a_server_that_keeps_cutting_is_given_up_and_what_came_is_kept(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, cut_after=2**18)
    with pytest.raises(ModelError, match="interrupted download will be resumed") as caught:
        support.pull(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(server.bodies(support.LARGE)) == 6
    server.mend()
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()
    assert server.served(support.LARGE) <= support.SIZE + 7 * support.SLACK


def test_a_server_that_does_not_know_ranges(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, cut_after=2**20, times=1)
    server.fault(support.LARGE, whole=True)
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()


@pytest.mark.parametrize("name", [support.LARGE, "config.json"])
def test_a_wrong_byte_is_named_and_mended_by_the_next_call(server, commit, tmp_path, name) -> None:
    server.fault(name, wrong_byte=7, times=1)
    with pytest.raises(ModelError, match=f"{name} arrived damaged"):
        support.pull(tmp_path)
    assert not (tmp_path / name).exists()
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(server, commit, tmp_path, status) -> None:
    server.fault("api", status=status, times=2)
    server.fault(support.LARGE, status=status, times=2)
    server.fault("config.json", status=status, times=2, retry_after="0")
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()


def test_a_hub_that_stays_busy_is_given_up(server, commit, tmp_path) -> None:
    snapshot = take_snapshot(support.REPOSITORY)
    server.fault(support.LARGE, status=429, retry_after="0")
    with pytest.raises(ModelError, match="answers 429.*HF_TOKEN"):
        download(snapshot, select_files(snapshot.files), tmp_path, support.ignore)
    server.fault("api", status=503)
    with pytest.raises(ModelError, match="answers 503"):
        take_snapshot(support.REPOSITORY)


def test_pauses_grow_or_are_as_long_as_the_hub_asks() -> None:
    pauses: list[float] = []
    patience = client.Retry(tries=5, wait=pauses.append)
    for after in (None, None, 7.0, 3600.0):
        patience.spend(client.TransientError("busy", hint="wait", after=after))
    assert pauses == [0.01, 0.02, 7.0, client.WAIT_AT_MOST_S]
    with pytest.raises(ModelError, match=r"busy \(wait\)"):
        patience.spend(client.TransientError("busy", hint="wait"))
    assert refusals._retry_after({"ratelimit": '"resolvers";r=0;t=42'}) == 42
    assert refusals._retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None


def test_a_page_that_is_not_the_file(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, page=b"<html>please log in</html>", times=2)
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()


def test_a_hub_that_falls_silent_is_asked_again(server, commit, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.fault(support.LARGE, hold_after=2**20, times=1)
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()
    assert len(server.bodies(support.LARGE)) == 2


def test_a_disk_that_fills_up(server, commit, make_disk) -> None:
    disk = make_disk(6 * 2**20)  # enough for the download, as long as nobody else writes there
    server.fault(support.LARGE, bytes_per_second=4 * 2**20)
    other = disk / "other"

    def fill(stage, done=None, total=None) -> None:
        if not other.exists() and support.largest_partial(disk / "model") > 0:
            other.write_bytes(bytes(int(shutil.disk_usage(disk).free * 0.9)))

    with pytest.raises(DiskFullError, match="no space is left"):
        support.pull(disk / "model", fill)
    other.unlink()
    server.mend()
    support.pull(disk / "model")
    assert support.content(disk / "model") == support.checkpoint()
    assert server.bodies(support.LARGE)[-1].range


def test_a_slow_hub_shows_progress(server, tmp_path) -> None:
    server.add(support.REPOSITORY, {"model.safetensors": support.noise(600_000)})
    server.fault("*", bytes_per_second=1_000_000)
    seen = []
    support.pull(tmp_path, lambda *figures: seen.append(figures))
    assert len({done for stage, done, _ in seen if stage == "downloading"}) >= 3


def test_a_hub_that_is_gone(server, commit, tmp_path) -> None:
    snapshot = take_snapshot(support.REPOSITORY)
    server.stop()
    with pytest.raises(ModelError, match="refused.*HF_ENDPOINT"):
        take_snapshot(support.REPOSITORY)
    with pytest.raises(ModelError, match="refused.*HF_ENDPOINT"):
        download(snapshot, select_files(snapshot.files), tmp_path, support.ignore)


def test_a_hub_that_goes_away_in_the_middle(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, hold_after=2**20)

    def go_away(stage, done=None, total=None) -> None:
        if support.largest_partial(tmp_path) >= 2**20 - support.SLACK:
            server.stop()

    with pytest.raises(ModelError, match="connection.*interrupted download will be resumed"):
        support.pull(tmp_path, go_away)
    assert 2**20 - support.SLACK <= support.largest_partial(tmp_path) <= 2**20


# --- mirrors --------------------------------------------------------------------------------------------------------


def test_a_mirror_that_lists_names_only(server, commit, tmp_path) -> None:
    server.repositories[support.REPOSITORY].names_only = True
    snapshot = take_snapshot(support.REPOSITORY)
    files = {file.name: file for file in select_files(snapshot.files)}
    assert files[support.LARGE].size == support.SIZE
    assert len(files[support.LARGE].sha256) == 64
    assert len(files["config.json"].git_oid) == 40
    heads = {request.name for request in server.requests if request.method == "HEAD"}
    assert heads == support.checkpoint().keys()
    support.pull(tmp_path)
    assert support.content(tmp_path) == support.checkpoint()


def test_a_mirror_s_announced_hashes_are_checked(server, commit, tmp_path) -> None:
    server.repositories[support.REPOSITORY].names_only = True
    server.fault(support.LARGE, wrong_byte=7, times=1)
    with pytest.raises(ModelError, match="arrived damaged"):
        support.pull(tmp_path)


@pytest.mark.parametrize("etag", [lambda data: hashlib.sha1(data).hexdigest(), lambda data: f"{len(data)}-5f2a"])
def test_a_mirror_with_other_entity_tags(server, commit, tmp_path, etag) -> None:
    repository = server.repositories[support.REPOSITORY]
    repository.names_only, repository.etag, repository.large_from = True, etag, 2**30
    server.fault(support.LARGE, cut_after=2**20, times=1)
    seen = []
    support.pull(tmp_path, lambda *figures: seen.append(figures))
    assert support.content(tmp_path) == support.checkpoint()
    assert server.bodies(support.LARGE)[-1].range
    assert seen[-1][1] == seen[-1][2]


def test_a_file_of_unknown_content_is_not_resumed_at_another_commit(server, commit, tmp_path) -> None:
    repository = server.repositories[support.REPOSITORY]
    repository.names_only, repository.etag, repository.large_from = True, lambda _: "x", 2**30
    server.fault(support.LARGE, cut_after=2**18)
    with pytest.raises(ModelError, match="will be resumed"):
        support.pull(tmp_path)
    server.mend()
    server.add(support.REPOSITORY, support.checkpoint() | {support.LARGE: support.noise(support.SIZE, 9)})
    repository.large_from = 2**30
    support.pull(tmp_path)
    assert (tmp_path / support.LARGE).read_bytes() == support.noise(support.SIZE, 9)
