"""Downloads that are killed, interrupted, or wanted by two processes at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

pytest.importorskip("huggingface_hub")

from phi3_core.errors import ModelError
from phi3_core.store.locking import locked
from phi3_core.store.store import PARTIAL
from stand_in_hub import support


@pytest.mark.parametrize("point", [0, 1_000_000, 2_000_000, support.SIZE - 1])
def test_killed_and_taken_up(server, commit, tmp_path, point) -> None:
    server.fault(support.LARGE, hold_after=point)
    with support.start_pull(tmp_path / "model") as child:
        server.wait_for(lambda: bool(server.bodies(support.LARGE)) and server.served(support.LARGE) >= point)
        support.until_partial_has(tmp_path / "model", max(0, point - support.SLACK))
        child.kill()
        child.communicate()
    assert not (tmp_path / "model" / support.LARGE).exists()
    server.mend()
    support.pull(tmp_path / "model")
    assert support.content(tmp_path / "model") == support.checkpoint()
    if point:
        last = server.bodies(support.LARGE)[-1]
        assert point - support.SLACK <= int(last.range.removeprefix("bytes=").rstrip("-")) <= point
        assert last.sent <= support.SIZE - point + support.SLACK


def test_killed_and_taken_up_with_another_commit(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, hold_after=2**20)
    with support.start_pull(tmp_path / "model") as child:
        support.until_partial_has(tmp_path / "model", 2**20 - support.SLACK)
        child.kill()
        child.communicate()
    server.mend()
    newer = support.checkpoint() | {support.LARGE: support.noise(support.SIZE, 99)}
    server.add(support.REPOSITORY, newer)
    support.pull(tmp_path / "model")
    assert support.content(tmp_path / "model") == newer
    assert server.bodies(support.LARGE)[-1].range is None


def test_two_processes_do_the_work_once(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, hold_after=2**20, times=1)
    with support.start_pull(tmp_path / "model") as first:
        support.until_partial_has(tmp_path / "model", 2**20 - support.SLACK)
        with support.start_pull(tmp_path / "model") as second:
            assert second.stdout.readline().startswith("waiting for another process")
            server.release()
            for child in (first, second):
                out, err = child.communicate(timeout=30)
                assert child.returncode == 0, err
                assert out.endswith("done\n")
                assert not err
    assert support.content(tmp_path / "model") == support.checkpoint()
    for name in support.checkpoint().keys() - {"empty.json"}:
        assert len(server.bodies(name)) == 1


def test_an_interruption_ends_it_at_once_and_nothing_is_written_later(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, bytes_per_second=200_000)

    def interrupt(stage, done=None, total=None) -> None:
        if server.served(support.LARGE) > 20_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        support.pull(tmp_path, interrupt)
    assert server.served(support.LARGE) < support.SIZE  # it has not waited for the file's end
    sizes = {path: path.stat().st_size for path in (tmp_path / PARTIAL).iterdir()}
    for thread in threading.enumerate():
        if thread.name.startswith("download-"):
            thread.join(20)
    assert sizes == {path: path.stat().st_size for path in (tmp_path / PARTIAL).iterdir()}


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C reaches every process on it")
def test_control_c_while_the_server_is_silent(server, commit, tmp_path) -> None:
    server.fault(support.LARGE, hold_after=2**20)
    with support.start_pull(tmp_path / "model") as child:
        support.until_partial_has(tmp_path / "model", 2**20 - support.SLACK)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert len(server.bodies(support.LARGE)) == 1  # after 10 seconds without an answer the client would ask again
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_the_lock_is_free_after_an_error(tmp_path) -> None:
    for _ in range(2):
        with pytest.raises(ModelError), locked(tmp_path / "a" / "b", support.ignore):
            raise ModelError("no")
