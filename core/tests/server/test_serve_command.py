"""``phi3 serve`` as a command: what it refuses, and ``--status``."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys

import pytest
from phi3_core.cli.serve import duration, host, port, whole

WITHOUT = """
import sys
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "fastapi" else found(name, package)
from phi3_core.cli import main
sys.exit(main(["serve", "--model", "sample"]))
"""


def test_without_the_extra_the_command_says_what_installs_it():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == ('phi3: the server needs fastapi, which is not installed (pip install "phi3-core[server]")\n')


def test_others_are_let_in_with_a_key_only(place, run_main):
    code, _, err = run_main("serve", "--model", place / "tiny", "--host", "0.0.0.0")
    assert code == 2
    assert "--api-key-file FILE" in err


def test_a_port_that_is_taken_is_told(place, run_main):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        code, _, err = run_main("serve", "--model", place / "tiny", "--port", number)
    assert code == 2
    assert f"cannot listen on 127.0.0.1, port {number}" in err
    assert "--port 0" in err


def test_an_address_of_another_machine_is_told(place, run_main, tmp_path):
    (tmp_path / "key").write_text("correct-horse-battery", encoding="utf-8")
    (tmp_path / "key").chmod(0o600)
    code, _, err = run_main(
        "serve", "--model", place / "tiny", "--host", "192.0.2.1", "--api-key-file", tmp_path / "key"
    )
    assert code == 2
    assert "--host takes an address of this machine" in err


def test_an_address_may_have_the_brackets_of_urls():
    assert [host(text) for text in ("[::1]", "::1", "127.0.0.1")] == ["::1", "::1", "127.0.0.1"]


def test_a_model_that_is_unknown_is_told_before_one_is_loaded(place, run_main):
    code, _, err = run_main("serve", "--model", place / "tiny", "--model", "nonsense", "--port", 0)
    assert code == 4
    assert "unknown model 'nonsense'" in err


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("30s", 30), ("5m", 300), ("1.5h", 5400), ("-1", None)]
)
def test_times_are_written_as_people_write_them(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "5d", "-2", "nan", "inf", "1e99", "m5"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time"):
        duration(text)


def test_numbers_have_bounds():
    assert (port("0"), port("65535"), whole("0")) == (0, 65535, 0)
    for call, text in ((port, "65536"), (port, "-1"), (port, "http"), (whole, "-1"), (whole, "1.5")):
        with pytest.raises(argparse.ArgumentTypeError):
            call(text)


def test_status_shows_what_a_server_does(server, run_main):
    code, out, _ = run_main("serve", "--status", "--port", server.port)
    assert code == 0
    assert out.startswith("ok, up for ")
    assert "tiny" in out
    assert "chorus:CPU" in out
    code, out, _ = run_main("serve", "--status", "--port", server.port, "--json")
    assert (code, json.loads(out)["models"][0]["model"]) == (0, "tiny")


def test_status_says_that_nothing_is_there(run_main):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and not listening
        code, _, err = run_main("serve", "--status", "--port", free.getsockname()[1])
    assert code == 2
    assert "no server listens on 127.0.0.1" in err
