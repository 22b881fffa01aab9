"""``phi3 launch``: what clients need to use a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from phi3_core.cli.launch import _NAMES
from phi3_core.remote.clients import CLIENTS, Target, merged, shell_lines
from phi3_core.remote.servers import RunningServer, announced

TARGET = Target(address="http://127.0.0.1:8000", model="tiny")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
    return tmp_path


def test_the_command_knows_all_clients():
    assert tuple(CLIENTS) == _NAMES


def test_variables_are_printed_for_the_shell(run_main):
    code, out, err = run_main("launch", "openai", "-m", "tiny", "--url", "http://127.0.0.1:8123/v1")
    if os.name == "nt":
        lines = ["$env:OPENAI_BASE_URL = 'http://127.0.0.1:8123/v1'", "$env:OPENAI_API_KEY = 'none'"]
    else:
        lines = ["export OPENAI_BASE_URL=http://127.0.0.1:8123/v1", "export OPENAI_API_KEY=none"]
    assert (code, out.splitlines()) == (0, lines)
    assert 'ask for model="tiny"' in err


def test_values_are_quoted():
    assert shell_lines({"A": "it's"}, windows=True) == ["$env:A = 'it''s'"]
    assert shell_lines({"A": "it's"}, windows=False) == ["export A='it'\"'\"'s'"]


def test_the_running_server_and_its_model_are_taken(place, server, monkeypatch, run_main):
    monkeypatch.setenv("PHI3_HOME", str(place / "home"))
    with announced(RunningServer(host="127.0.0.1", port=server.port, token="")):
        code, out, _ = run_main("launch", "aider")
    assert code == 0
    assert out.splitlines()[1:] == [
        f'openai-api-base: "http://127.0.0.1:{server.port}/v1"',
        'openai-api-key: "none"',
        'model: "openai/tiny"',
        "show-model-warnings: false",
    ]


def test_without_a_server_it_says_so(run_main):
    code, out, err = run_main("launch", "anthropic", "-m", "tiny")
    assert code == 0
    assert "http://127.0.0.1:8000" in out
    assert "phi3: no server of this user runs: phi3 serve starts one" in err.splitlines()


@pytest.mark.parametrize("client", _NAMES)
def test_what_is_written_is_written_once(folder, run_main, client):
    for _ in range(2):
        code, out, err = run_main("launch", client, "-m", "tiny", "--url", TARGET.address, "--write")
        assert (code, out) == (0, "")
        assert "has the settings; next: " in err
    settings = CLIENTS[client](TARGET)
    assert settings.file.read_text(encoding="utf-8").splitlines() == list(settings.lines)


@pytest.mark.parametrize(
    ("client", "text"),
    [
        ("openai", "OPENAI_API_KEY=sk-1\n"),
        ("openai", "export OPENAI_BASE_URL=x\n"),
        ("aider", "# mine\nmodel: gpt\n"),
        ("continue", "name: mine\n"),
        ("llm", '- model_id: "phi3-tiny"\n  model_name: other\n'),
        ("llm", "a: mapping\n"),
    ],
)
def test_what_is_there_is_never_replaced(folder, run_main, client, text):
    file = CLIENTS[client](TARGET).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    code, _, err = run_main("launch", client, "-m", "tiny", "--url", TARGET.address, "--write")
    assert code == 2
    assert "has other settings already (without --write they are printed, to add by hand)" in err
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("client", "text"),
    [("openai", "A=1"), ("aider", "dark-mode: true\n"), ("llm", "# mine\n- model_id: a\n  model_name: b\n")],
)
def test_other_settings_stay(client, text):
    settings = CLIENTS[client](TARGET)
    found = merged(settings, text)
    assert found == "\n".join([*text.splitlines(), *settings.lines]) + "\n"


def test_a_key_is_stated(folder, run_main):
    (folder / "key").write_text("k" * 20 + "\n", encoding="utf-8")
    flags = ("-m", "tiny", "--url", TARGET.address, "--api-key-file", folder / "key")
    assert "k" * 20 in run_main("launch", "anthropic", *flags)[1]
    out, err = run_main("launch", "llm", *flags)[1:]
    assert "  api_key_name: phi3" in out.splitlines()
    assert "llm keys set phi3" in err


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://a/b", "http://"])
def test_what_is_no_address_is_refused(run_main, url):
    code, _, err = run_main("launch", "openai", "-m", "tiny", "--url", url)
    assert code == 2
    assert "is no address of a server" in err


def test_a_file_that_cannot_be_read_is_told(folder, run_main):
    Path(".env").mkdir()
    code, _, err = run_main("launch", "openai", "-m", "tiny", "--url", TARGET.address, "--write")
    assert code == 2
    assert "cannot be changed" in err
    Path(".aider.conf.yml").write_bytes(b"\xff\xfe\xff")
    code, _, err = run_main("launch", "aider", "-m", "tiny", "--url", TARGET.address, "--write")
    assert code == 2
    assert "it is not UTF-8" in err
