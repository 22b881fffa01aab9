"""Every file that cannot be the configuration is one line, which names it and what to do."""

from __future__ import annotations

import contextlib
import os
import sys

import platformdirs
import pytest
from phi3_core.config import file, values
from phi3_core.errors import UsageError

DEEP = b"x = " + b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"temprature = 0.5", "temprature in {path} is no setting (did you mean temperature? phi3 config unset"),
        (b"max-new-tokens = 5", "did you mean max_new_tokens?"),
        (b"[limits]\nload = 5\nmodel = 'sample'", "limits.model in {path} is no setting (did you mean model?"),
        (b"[limits]\nlaod = 5", "limits.laod in {path} is no setting (did you mean limits.load?"),
        (b"load = 5", "did you mean limits.load?"),
        (b"[alias]\nmini = 'sample'", "alias.mini in {path} is no setting (did you mean aliases?"),
        (b"[option.openvino]\nA = '1'", "option.openvino in {path} is no setting (did you mean options?"),
        (b"xyzzy = 1", "xyzzy in {path} is no setting (phi3 config unset xyzzy removes it)"),
        (b"limits = 5", "limits in {path} is 5, not a table (phi3 config unset limits)"),
        (b"aliases = 'mini'", "aliases in {path} is 'mini', not a table"),
        (b"[options]\nA = '1'", "options.A in {path} belongs to no backend (phi3 config set options.BACKEND.A VALUE,"),
        (b"[options.openvino]\nA = true", "is True, not text or a number"),
        (b'"a\\nb" = 1', r"'a\nb' in {path} is no setting (phi3 config unset 'a\nb' removes it)"),
        (b"model = ['" + b"x" * 500 + b"']", "model in {path} is ['" + "x" * 58 + "…, not the name of a model"),
        (b"system = ''", "system in {path} is '', not text (phi3 config set system TEXT)"),
        (b"[temperature]\nx = 1", "temperature in {path} is a table, not a number from 0 on"),
        (b"temperature = '0.5'", "temperature in {path} is '0.5', not a number from 0 on (phi3 config set temperature"),
        (b"temperature = true", "temperature in {path} is True, not a number from 0 on"),
        (b"temperature = nan", "temperature in {path} is nan, not a number from 0 on"),
        (b"max_new_tokens = 5.5", "max_new_tokens in {path} is 5.5, not a whole number from 1 on"),
        (b"policy = 'fast'", "is 'fast', not auto, performance or efficiency (phi3 config set policy auto)"),
        (b"device = ''", "device in {path} is '', not text (phi3 config set device auto)"),
        (b'home = "a\\u0000b"', "not a path"),
        (b"stats = 1", "stats in {path} is 1, not true or false"),
        (b"stop = ['a', 5]", "stop in {path} is ['a', 5], not a list of texts"),
        (b"[aliases]\nsample = 'phi-4'", "aliases.sample in {path} cannot be an alias: sample is the name of a model"),
        (b"[aliases]\nSAMPLE = 'phi-4'", "cannot be an alias: sample is the name of a model already"),
        (b"[aliases]\n'a/b' = 'phi-4'", "cannot be an alias: an alias has letters"),
        (b"[aliases]\na = 'b'\nb = 'a'", "the aliases form a circle: a -> b -> a (phi3 config unset aliases.a)"),
        (b"[aliases]\na = 'a'", "the aliases form a circle: a -> a"),
        (b"model = 'a'\nmodel = 'b'\n", "is not TOML: line 2, \"model = 'b'\": it was given before (phi3 config edit"),
        (b"[limits]\nload = 5\n[limits]\ntoken = 5", "line 3, '[limits]': it was given before"),
        (b"model = \n", "is not TOML: line 1, 'model =': Invalid value"),
        (b"model = 'sam", 'is not TOML: line 1, "model = \'sam": '),
        (b"seed = " + b"9" * 5000, "is not TOML: "),
        (b"seed = 9999999999", "is 9999999999, not a whole number from 0 to 4294967295"),
        (DEEP, "is nested too deeply (phi3 config edit opens it)"),
        ("system = 'Grüße'".encode("latin-1"), "the configuration file {path} is not UTF-8"),
        (b"model = 'a\0b'", "is not text: it has zero bytes"),
        (bytes(range(256)), "the configuration file {path} is not text: it has zero bytes"),
        (b"#" * (file.LARGEST + 1), "has more than 1 MB: it is something else"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line_with_a_hint(configure, run_main, content, words):
    path = configure(content)
    for command in (["config"], ["devices"]):
        code, out, err = run_main(*command)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        assert words.replace("{path}", str(path)) in line
        assert line.endswith(")")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "is a folder (PHI3_CONFIG=FILE names another one)"),
        (lambda _: None, "there is no configuration file {path} (unset PHI3_CONFIG"),
        (lambda path: path.symlink_to(path.parent / "nothing"), "is a link to nothing"),
        (lambda path: path.symlink_to(path), "cannot be read: "),
    ],
    ids=["folder", "nothing", "link to nothing", "circle of links"],
)
def test_what_is_no_file_is_one_line(configure, tmp_path, run_main, make, words):
    path = tmp_path / "settings" / "config.toml"
    try:
        make(path)
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    code, out, err = run_main("models", "list")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert words.replace("{path}", str(path)) in line


@contextlib.contextmanager
def somebody_else():
    """Act as a user who may not read what root keeps for itself, or as whoever runs the tests."""
    if sys.platform == "win32":
        pytest.skip("Windows has no modes")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_named(configure):
    path = configure("device = 'cpu'")
    path.chmod(0)
    with somebody_else(), pytest.raises(UsageError, match="cannot be read: permission denied") as caught:
        values.check()
    assert str(path) in str(caught.value)


def test_a_home_folder_that_cannot_be_entered_has_no_file(monkeypatch, tmp_path):
    monkeypatch.delenv("PHI3_CONFIG")
    folder = tmp_path / "phi3"
    folder.mkdir()
    (folder / "config.toml").write_text("device = 'cpu'", encoding="utf-8")
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda *_, **__: str(folder))
    assert values.value("device") == "cpu"
    file.forget()
    folder.chmod(0)
    with somebody_else():
        assert values.value("device") == "auto"
    folder.chmod(0o700)


def test_a_relative_path_is_that_of_the_start(monkeypatch, tmp_path):
    file.forget()
    (tmp_path / "mine.toml").write_text("device = 'cpu'", encoding="utf-8")
    monkeypatch.setenv("PHI3_CONFIG", "mine.toml")
    monkeypatch.chdir(tmp_path)
    assert values.value("device") == "cpu"
    monkeypatch.chdir(tmp_path.parent)
    assert values.value("device") == "cpu"
    file.forget()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfdevice = 'cpu'\n",
        b"# mine\r\ndevice = 'cpu'\r\n",
        "device = 'cpu'\n".encode("utf-16"),
        b"device = 'cpu'",
        b"device = 'cpu'\n[aliases]\n[limits]\n[options]\n[options.openvino]\n",
    ],
    ids=["byte-order mark", "Windows' line ends", "UTF-16", "no line end", "empty tables"],
)
def test_whatever_program_has_written_it(configure, content):
    configure(content)
    values.check()
    assert values.value("device") == "cpu"


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_file_says_nothing(configure, content):
    configure(content)
    values.check()
    assert values.value("device") == "auto"


def test_no_file_is_needed(monkeypatch, tmp_path):
    monkeypatch.delenv("PHI3_CONFIG")
    for name in ("HOME", "XDG_CONFIG_HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    assert file.location().is_absolute()
    if sys.platform == "linux":
        assert file.location() == tmp_path / "phi3" / "config.toml"
        assert values.find("device") == (values.BY_KEY["device"], "auto", "default", "")
