"""The files of running engines: which ones are shown, and which ones are left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from attrs import evolve
from damage import damaged
from phi3_core import paths
from phi3_core.activity import records, running
from phi3_core.activity.overview import Observer
from phi3_core.activity.running import RunningEngine, running_engines
from phi3_core.cli import top_output
from phi3_core.remote import servers
from phi3_core.values import to_plain
from rich.console import Console


@pytest.fixture
def process():
    """A process that does nothing."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


@pytest.fixture
def engine(home, process):
    """An engine in this process, with its file."""
    facts: dict[str, Any] = {
        "model": "tiny",
        "device": "parrot:CPU",
        "kind": "cpu",
        "name": "A parrot",
        "precision": "fp16",
    }
    numbers: dict[str, Any] = {"context_length": 64, "max_concurrency": 1, "since": time.time()}
    return written(RunningEngine(process=process.pid, backend="phi3-parrot 1.0", **facts, **numbers))


def written(engine):
    found = running.located(engine)
    running.write(found, running.folder())
    return found


def file_of(engine):
    return records.file_of(engine, running.folder())


def test_there_is_none_in_an_empty_store(home):
    assert running_engines() == ()


def test_an_engine_is_read_as_it_was_written(engine):
    assert running_engines() == (engine,)
    assert abs(engine.process_started - time.time()) < 30


def test_the_oldest_comes_first(engine):
    other = written(evolve(engine, process=os.getpid(), since=engine.since - 60))
    assert running_engines() == (other, engine)


def test_the_file_of_a_process_that_has_ended_is_removed(engine, process):
    process.kill()
    process.wait()
    assert running_engines() == ()
    assert not file_of(engine).exists()


def test_another_process_with_the_same_id_is_not_the_engine(engine):
    running.write(evolve(engine, process_started=engine.process_started - 3600), running.folder())
    assert running_engines() == ()
    assert not file_of(engine).exists()


def test_engines_of_other_machines_and_containers_are_left_alone_for_a_month(engine):
    other = evolve(engine, place="0badcafe", process=1)
    running.write(other, running.folder())
    assert running_engines() == (engine,)
    assert file_of(other).exists()
    month_ago = time.time() - 31 * 86400
    os.utime(file_of(other), (month_ago, month_ago))
    assert running_engines() == (engine,)
    assert not file_of(other).exists()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"place": None},
        {"process": "1"},
        {"process": True},
        {"since": None},
        {"tokens": [7]},
        {"model": 3},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_file_of_another_version_or_with_nonsense_is_not_shown(engine, change):
    content = json.loads(file_of(engine).read_text(encoding="utf-8"))
    file_of(engine).write_text(json.dumps({**content, **change}), encoding="utf-8")
    assert running_engines() == ()
    assert file_of(engine).exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "7"])
def test_a_damaged_file_is_not_shown(engine, text):
    file_of(engine).write_text(text, encoding="utf-8")
    assert running_engines() == ()


def test_no_value_of_a_damaged_file_is_an_error(home, engine):
    (file,) = running.folder().glob("*.json")
    whole = json.loads(file.read_text(encoding="utf-8"))
    shown = 0
    for content in damaged({**whole, "tokens_per_s": 1.0}):
        file.write_text(json.dumps(content), encoding="utf-8")
        look = Observer().look()
        json.dumps(to_plain(top_output.document(look)), allow_nan=False)
        top_output.print_overview(look, Console(), 200)
        shown += len(look.engines)
    assert shown  # such as one with another name


def test_no_value_of_a_damaged_file_of_a_server_is_an_error(home):
    started = records.start_of(os.getpid())
    whole = {
        "format": servers.FORMAT,
        "host": "127.0.0.1",
        "port": 1,
        "token": "x",
        "process": os.getpid(),
        "process_started": started,
        "place": records.place(),
    }
    file = home / "servers" / "x.json"
    for content in (whole, *damaged(whole)):
        paths.write_json(file, content)
        for server in servers.running_servers():
            assert 0 < server.port < 65536
    paths.write_json(file, whole)
    assert [server.port for server in servers.running_servers()] == [1]
