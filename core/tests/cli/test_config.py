"""``phi3 config`` shows what holds, and where each value comes from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from phi3_core.config.table import SETTINGS


@pytest.fixture
def path(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.write_text(
        "device = 'npu'\nstop = ['a', 'b']\n[aliases]\nmini = 'a/b'\n[options.openvino]\nX = 1\n", encoding="utf-8"
    )
    monkeypatch.setenv("PHI3_CONFIG", str(path))
    return path


def test_json_has_every_setting_with_its_origin(path, run_main, monkeypatch):
    monkeypatch.setenv("PHI3_TOP_K", "5")
    monkeypatch.setenv("PHI3_MODLE", "sample")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    code, out, err = run_main("config", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        *("file", "exists", "settings", "aliases", "options", "other_variables", "unknown_variables"),
    }
    assert (found["file"], found["exists"]) == (str(path), True)
    rows = {row["key"] or row["variable"]: row for row in found["settings"]}
    assert list(rows) == [setting.name for setting in SETTINGS]
    assert all(
        set(row) == {"key", "variable", "value", "source", "where", "default", "meaning"} for row in rows.values()
    )

    def shown(name):
        return tuple(rows[name][field] for field in ("value", "source", "where"))

    assert shown("device") == ("npu", "file", str(path))
    assert shown("stop") == (["a", "b"], "file", str(path))
    assert shown("top_k") == (5, "variable", "PHI3_TOP_K")
    assert shown("policy") == ("auto", "default", None)
    assert found["aliases"] == {"mini": "a/b"}
    assert found["options"] == {"openvino": {"X": "1"}}
    assert found["other_variables"]["HF_TOKEN"] == "(set)"
    assert "PHI3_MODLE" in found["unknown_variables"]
    assert "phi3: PHI3_MODLE is no setting; did you mean PHI3_MODEL?" in err.splitlines()


def test_the_table_has_a_row_for_each(path, run_main):
    code, out, _ = run_main("config")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["device", "npu", str(path)] in rows
    assert ["policy", "auto", "default"] in rows
    assert ["aliases.mini", "a/b", str(path)] in rows
    assert ["options.openvino.X", "1", str(path)] in rows
    assert {row[0] for row in rows if row} >= {setting.name for setting in SETTINGS}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("device", "npu"), ("max-new-tokens", "1024"), ("temperature", "0"), ("seed", "none"), ("stop", "'a' 'b'")),
        *(("limits.load", "900"), ("aliases.mini", "a/b"), ("options.openvino.X", "1"), ("aliases.x", "none")),
    ],
)
def test_one_value_is_printed(path, run_main, key, value):
    assert run_main("config", "show", key) == (0, f"{value}\n", "")


def test_paths_are_those_that_hold(path, run_main, home, monkeypatch, tmp_path):
    assert run_main("config", "show", "home") == (0, f"{home}\n", "")
    monkeypatch.delenv("PHI3_HOME")
    _, out, _ = run_main("config", "show", "home")
    assert Path(out.strip()).is_absolute()
    monkeypatch.setenv("PHI3_HOME", "here")
    monkeypatch.chdir(tmp_path)
    assert run_main("config", "show", "home") == (0, f"{tmp_path / 'here'}\n", "")


def test_without_a_file_it_says_so(run_main):
    code, out, _ = run_main("config")
    assert (code, "there is no file" in out) == (0, False)  # none is to be read
    code, _, err = run_main("config", "set", "seed", "1")
    assert (code, err) == (2, "phi3: PHI3_CONFIG is none: there is no file to change (unset PHI3_CONFIG)\n")
    code, _, err = run_main("config", "path")
    assert (code, err) == (2, "phi3: no configuration file is read (unset PHI3_CONFIG)\n")


EDITOR = "import sys; open(sys.argv[-1], 'w', encoding='utf-8').write({!r})"


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("seed = 1\n", 0, ""),
        ("sead = 1\n", 2, "did you mean seed?"),
        ("seed = \n", 2, "is not TOML: line 1"),
    ],
)
def test_edit_checks_what_was_written(tmp_path, run_main, monkeypatch, text, code, words):
    editor = tmp_path / "an editor.py"
    editor.write_text(EDITOR.format(text), encoding="utf-8")
    path = tmp_path / "new" / "config.toml"
    monkeypatch.setenv("PHI3_CONFIG", str(path))
    monkeypatch.setenv("VISUAL", f'"{sys.executable}" "{editor}"')
    got, out, err = run_main("config", "edit")
    assert (got, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == (1 if words else 0)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("editor", "words"),
    [
        ("no-such-editor", "the editor 'no-such-editor' does not start"),
        (f'"{sys.executable}" -c "raise SystemExit(3)"', "ended with exit code 3"),
    ],
)
def test_an_editor_that_fails_is_named(path, run_main, monkeypatch, editor, words):
    before = path.read_bytes()
    monkeypatch.setenv("VISUAL", editor)
    code, out, err = run_main("config", "edit")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err
    assert path.read_bytes() == before


def test_the_report_has_the_settings_and_nothing_of_the_users_words(path, plugins, run_main, monkeypatch):
    path.write_text("system = 'I am Ann.'\n[limits]\nload = 5\n[options.openvino]\nX = 1\n", encoding="utf-8")
    monkeypatch.setenv("PHI3_STOP", "Ann")
    _, out, _ = run_main("doctor", "--no-generate", "--json")
    assert {
        "system": "(set)",
        "PHI3_STOP": "(set)",
        "limits.load": "5",
        "options.openvino.X": "1",
    }.items() <= json.loads(out)["settings"].items()
    assert "Ann" not in out
