"""``phi3 run`` and ``phi3 chat`` use a running server of the same user that has loaded the model."""

from __future__ import annotations

import io
import json
import os
import stat
import sys

import pytest
from attrs import evolve
from phi3_core.remote import servers
from phi3_core.remote.servers import RunningServer, announced, running_servers

SAID = "Hello world Hello world Hello"


@pytest.fixture
def ask(place, server, run_main, monkeypatch):
    """Run a command beside a server that has told of itself."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with announced(RunningServer(host="127.0.0.1", port=server.port, token="")):

        def ask(command, *arguments, model="tiny", max_new_tokens=5):
            loads = len(server.notes("load"))
            flags = ("-m", place / model, "--max-new-tokens", max_new_tokens)
            code, out, err = run_main(command, *arguments, *flags)
            return code, out, err, len(server.notes("load")) - loads

        yield ask


def test_a_model_that_a_server_has_is_not_loaded(ask, server):
    code, out, err, loads = ask("run", "Hello world", "--temperature", "0.5", "--seed", "7", "--top-k", "3")
    assert (code, loads) == (0, 0)
    assert out.strip()
    where = f"phi3: tiny in fp16 on chorus:CPU, which phi3 serve has loaded at http://127.0.0.1:{server.port}"
    assert f"{where} (--no-server loads it here)" in err.splitlines()
    asked = {"temperature": 0.5, "top_k": 3, "top_p": 1.0, "repetition_penalty": 1.0, "seed": 7}
    assert server.notes("asked")[-1] == asked | {"max_new_tokens": 5, "json_schema": None}


def test_the_answer_is_the_same_with_and_without_it(ask):
    served = json.loads(ask("run", "Hello world", "--json")[1])
    code, out, _, loads = ask("run", "Hello world", "--json", "--no-server", "--no-check", "-d", "chorus")
    own = json.loads(out)
    assert (code, loads) == (0, 1)
    figures = {"time_to_first_token_s", "decode_tokens_per_s", "activity"}
    assert served.keys() == own.keys()
    assert {key: served[key] for key in served.keys() - figures} == {key: own[key] for key in own.keys() - figures}


@pytest.mark.parametrize("flags", [("-d", "chorus:CPU"), ("-d", "chorus"), ("-d", "cpu"), ("--precision", "fp16")])
def test_a_device_that_fits_is_used(ask, flags):
    code, _, err, loads = ask("run", "Hello", *flags)
    assert (code, loads) == (0, 0)
    assert "phi3 serve has loaded" in err


@pytest.mark.parametrize(
    "flags",
    [
        ("--precision", "int4"),
        ("-d", "chorus:GPU"),
        ("-d", "npu"),
        ("--option", "a=b"),
        ("--lookup", "on"),
        ("--temperature", "3"),
    ],
)
def test_what_the_server_does_not_have_is_not_asked_of_it(ask, flags):
    assert "phi3 serve" not in ask("run", "Hello", "--no-check", *flags)[2]


def test_another_model_of_the_same_name_is_another_model(ask, place):
    (place / "elsewhere").mkdir()
    code, _, err, _ = ask("run", "Hello", model="elsewhere/tiny")
    assert code == 4
    assert "phi3 serve" not in err


def test_a_conversation_is_the_server_s(ask, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello\nworld\n")))
    code, out, err, loads = ask("chat", "--drop-oldest")
    assert (code, loads) == (0, 0)
    assert len(out.splitlines()) == 2
    assert "phi3 serve has loaded" in err


def test_an_engine_that_fails_there_is_told(ask):
    code, _, err, _ = ask("run", "Hello", max_new_tokens=66)
    assert code == 5
    assert "phi3: the server says: " in err
    assert "lost the device" in err
    assert "(--no-server loads the model here)" in err


def test_a_prompt_that_is_too_long_is_told_as_ever(ask):
    code, _, err, _ = ask("run", "word " * 5000)
    assert code == 2
    assert "the server says: " in err


def test_a_server_that_is_gone_is_not_asked(place):
    with announced(RunningServer(host="127.0.0.1", port=1, token="")):
        (here,) = running_servers()
        file = next(servers.folder().glob("*.json"))
        if os.name != "nt":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        servers._write(file, {"format": servers.FORMAT, **vars_of(evolve(here, process_started=1.0))})
        assert list(running_servers()) == []
        assert not file.exists()
    assert not servers.is_any()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "host": 5}'])
def test_a_file_that_is_damaged_is_no_server(place, content):
    servers.folder().mkdir(parents=True, exist_ok=True)
    file = servers.folder() / "damaged.json"
    file.write_text(content, encoding="utf-8")
    assert list(running_servers()) == []
    file.unlink()


def vars_of(server):
    return {name: getattr(server, name) for name in ("host", "port", "token", "process", "process_started", "place")}
