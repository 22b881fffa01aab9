"""``phi3 config set`` and ``unset`` change one key, and leave the rest of the file as it is."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phi3_core import files
from phi3_core.config import file, template, values, writing
from phi3_core.config.table import BY_KEY
from phi3_core.errors import DiskFullError, UsageError

MINE = """\
# What I like.
temperature = 0.5   # a little
  device="npu"

stop = [ "a",
  "b", ]   # two

[ limits ]  # seconds
load = 5

[options.openvino]   # from the forum
NUM_STREAMS = 1
"""


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [
        (("temperature", "0.7"), "temperature = 0.5   # a little", "temperature = 0.7   # a little"),
        (("limits.load", "6"), "load = 5", "load = 6.0"),
        (("limits.token", "7"), "load = 5\n", "load = 5\ntoken = 7.0\n"),
        (("options.openvino.NUM_STREAMS", "2"), "NUM_STREAMS = 1", 'NUM_STREAMS = "2"'),
        (("options.dml.A", ""), MINE[-5:], MINE[-5:] + '\n[options.dml]\nA = ""\n'),
        (("max-new-tokens", "9"), '  "b", ]   # two\n', '  "b", ]   # two\nmax_new_tokens = 9\n'),
    ],
)
def test_one_key_is_set(configure, run_main, arguments, before, after):
    path = configure(MINE)
    code, out, err = run_main("config", "set", *arguments)
    assert (code, out) == (0, "")
    assert err == f"phi3: {arguments[0].replace('max-new-tokens', 'max_new_tokens')} is set in {path}\n"
    assert MINE.count(before) == 1 or before == MINE[-5:]
    head, _, tail = MINE.rpartition(before)
    written = path.read_text(encoding="utf-8")
    assert written.replace("\n\n", "\n") == (head + after + tail).replace("\n\n", "\n")
    values.check()


@pytest.mark.parametrize(
    ("content", "key", "left"),
    [
        (MINE, "device", MINE.replace('  device="npu"\n', "")),
        (MINE, "options.openvino.NUM_STREAMS", MINE.replace("NUM_STREAMS = 1\n", "")),
        (MINE, "limits", MINE.replace("[ limits ]  # seconds\nload = 5\n\n", "")),
        ("temprature = 5\nseed = 1\n", "temprature", "seed = 1\n"),
        ("[limits]\nmodel = 'a'\n", "limits.model", "[limits]\n"),
        ("top_k = 'x'\n", "top-k", ""),
        ("'a.b' = 1\n[a]\n", "a.b", "[a]\n"),
        ("[options.x]\n'y.z' = 1\ny.w = 2\n", "options.x.y.z", "[options.x]\ny.w = 2\n"),
    ],
)
def test_one_key_is_removed_also_a_wrong_one(configure, run_main, content, key, left):
    path = configure(content)
    code, out, err = run_main("config", "unset", key)
    assert (code, out, err) == (0, "", f"phi3: {key} is removed from {path}\n")
    assert path.read_text(encoding="utf-8") == left


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (MINE, ("set", "temperature", "hot"), "temperature is 'hot', not a number from 0 on (phi3 config set"),
        (MINE, ("set", "temprature", "1"), "there is no setting 'temprature' (did you mean temperature?"),
        (MINE, ("set", "limits.lod", "1"), "did you mean limits.load?"),
        (MINE, ("set", "limits", "1"), "there is no setting 'limits'"),
        (MINE, ("set", "options.openvino", "1"), "it is written options.BACKEND.KEY"),
        (MINE, ("set", "aliases.", "x"), "it is written aliases.NAME"),
        (MINE, ("set", "model", "a", "b"), "model takes one value"),
        (MINE, ("set", "model", ""), "model is '', not the name of a model"),
        (MINE, ("set", "system", "\udcff"), "system is '\\udcff', not text"),
        (MINE, ("set", "aliases.sample", "x"), "sample is the name of a model already"),
        (MINE, ("set", "aliases.a/b", "x"), "an alias has letters"),
        (MINE, ("set", "aliases.a", "a"), "the aliases form a circle: a -> a"),
        (MINE, ("unset", "top_k"), "does not set top_k"),
        (MINE, ("unset", ""), "does not set "),
        (MINE, ("unset", "device.x"), "does not set device.x"),
        ("model = ", ("set", "seed", "1"), "is not TOML: line 1"),
        ("model = ", ("unset", "model"), "is not TOML: line 1"),
        ("limits = 5\n", ("set", "limits.load", "1"), "is 5, not a table (phi3 config unset limits)"),
        ("[[aliases]]\na = 'x'\n", ("set", "aliases.b", "y"), "not a table"),
        ("a = 'Grüße'".encode("latin-1"), ("set", "seed", "1"), "is not UTF-8"),
    ],
)
def test_bad_input_loses_nothing(configure, run_main, content, arguments, words):
    path = configure(content)
    before = path.read_bytes()
    code, out, err = run_main("config", *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert words in line
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_an_alias_is_checked_against_the_others_and_the_store(configure, run_main, home):
    configure("[aliases]\na = 'b'\n")
    assert run_main("config", "set", "aliases.b", "a")[0] == 2
    (home / "sources" / "mine").mkdir(parents=True)
    code, _, err = run_main("config", "set", "aliases.mine", "sample")
    assert (code, "the store has a model 'mine' already" in err) == (2, True)
    assert run_main("config", "set", "aliases.b", "sample")[0] == 0
    assert values.aliases() == {"a": "b", "b": "sample"}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_the_mark_stay(configure, mark):
    path = configure(mark + MINE.replace("\n", "\r\n").encode())
    writing.change(("seed",), ["1"])
    data = path.read_bytes()
    assert data.startswith(mark + b"# What")
    assert data.count(b"\n") == data.count(b"\r\n") == MINE.count("\n") + 1
    writing.remove("seed")
    assert path.read_bytes() == mark + MINE.replace("\n", "\r\n").encode()


def test_a_file_in_utf_16_stays_one(configure):
    path = configure(MINE.encode("utf-16"))
    writing.change(("seed",), ["1"])
    assert path.read_bytes().decode("utf-16").count("seed = 1") == 1


def test_a_link_stays_one_and_the_file_keeps_its_permissions(configure, tmp_path):
    path = configure("")
    path.unlink()
    real = tmp_path / "dotfiles" / "phi3.toml"
    real.parent.mkdir()
    real.write_text("seed = 1\n", encoding="utf-8")
    real.chmod(0o600)
    try:
        path.symlink_to(real)
    except OSError:
        pytest.skip("no links here")
    writing.change(("seed",), ["2"])
    assert path.is_symlink()
    assert real.read_text(encoding="utf-8") == "seed = 2\n"
    if sys.platform != "win32":
        assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_the_first_key_creates_the_folder_and_the_file(monkeypatch, tmp_path, run_main):
    path = tmp_path / "a" / "b" / "config.toml"
    monkeypatch.setenv("PHI3_CONFIG", str(path))
    assert run_main("config", "path")[:2] == (0, f"{path}\n")
    assert run_main("config", "set", "stop", "a", "b c")[0] == 0
    assert path.read_text(encoding="utf-8") == 'stop = ["a", "b c"]\n'


def test_a_path_is_kept_as_the_shell_means_it(configure, run_main, monkeypatch, tmp_path):
    monkeypatch.delenv("PHI3_HOME")
    configure("")
    (tmp_path / "models" / "mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for arguments in (("home", "store"), ("model", "./mini"), ("aliases.here", "models/mini"), ("aliases.hub", "a/b")):
        assert run_main("config", "set", *arguments)[0] == 0
    assert values.value("home") == str(tmp_path / "store")
    assert values.value("model") == str(tmp_path / "mini")
    assert values.aliases() == {"here": str(tmp_path / "models" / "mini"), "hub": "a/b"}


def test_a_variable_that_comes_first_is_named(configure, run_main, monkeypatch):
    configure("")
    monkeypatch.setenv("PHI3_DEVICE", "cpu")
    assert "but PHI3_DEVICE comes first" in run_main("config", "set", "device", "npu")[2]


def test_a_full_disk_loses_nothing(make_disk, monkeypatch):
    folder = make_disk(64 * 1024)
    path = folder / "config.toml"
    path.write_text("seed = 1\n", encoding="utf-8")
    (folder / "rest").write_bytes(bytes(64 * 1024 - 2 * os.sysconf("SC_PAGE_SIZE")))
    monkeypatch.setenv("PHI3_CONFIG", str(path))
    with pytest.raises(DiskFullError, match="no space is left"):
        writing.change(("system",), ["x" * 10_000])
    assert path.read_text(encoding="utf-8") == "seed = 1\n"
    assert sorted(folder.iterdir()) == [path, folder / "rest"]


def test_a_file_that_a_program_holds_is_left_as_it_is(configure, monkeypatch):
    path = configure("seed = 1\n")

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "replace", denied)
    monkeypatch.setattr(files, "LIMIT_S", 0.1)
    with pytest.raises(UsageError, match="cannot be written: permission denied"):
        writing.change(("seed",), ["2"])
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [
        "limits = { load = 1 }\noptions = { openvino = { A = '1' } }\naliases = {}\n",
        "limits.load = 1\noptions.openvino.A = '1'\n",
        "[options]\nopenvino.A = '1'\n[limits]\n[options.dml]\nB = 'x'\n",
        "[options.openvino]\nA = '1'\n[limits]\n[aliases]\nx = 'y'\n[options.dml]\n",
        '["options"."openvino"]\n"A" = """1"""\n',
        "[options.openvino]",
    ],
    ids=["inline", "dotted", "half dotted", "apart", "quoted", "no line end"],
)
def test_every_way_to_write_a_table_can_be_changed(configure, content):
    configure(content)
    before = file.content()
    writing.change(("limits", "load"), ["2"])
    writing.change(("options", "openvino", "B.C"), ["D=E"])
    writing.change(("aliases", "mini"), ["sample"])
    writing.change(("seed",), ["3"])
    after = file.content()
    assert after.pop("seed") == 3
    assert after["aliases"].pop("mini") == "sample"
    assert after["options"]["openvino"].pop("B.C") == "D=E"
    assert after["limits"].pop("load") == 2.0
    before.get("limits", {}).pop("load", None)
    empty: dict[str, Any] = {"aliases": {}, "limits": {}, "options": {"openvino": {}}}
    assert {**empty, **after} == {**empty, **before}


OPTIONS = st.tuples(st.just("options"), st.sampled_from(["a", "b c"]), st.text("AB.\"'\\ é", min_size=1))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just(("seed",)), st.integers(0, 9).map(str)),
        st.tuples(st.just(("system",)), st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)),
        st.tuples(st.just(("limits", "load")), st.integers(1, 9).map(str)),
        st.tuples(OPTIONS, st.text("x'\"\n\\ é")),
        st.tuples(st.tuples(st.just("aliases"), st.sampled_from("xyz")), st.just("sample")),
    ),
    max_size=6,
)


@given(CHANGES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_set_is_there_and_nothing_else(configure, changes):
    path = configure(MINE)
    wanted = file.content()
    for key, text in changes:
        writing.change(key, [text])
        table = wanted
        for part in key[:-1]:
            table = table.setdefault(part, {})
        table[key[-1]] = text if key[0] != "seed" and key[0] != "limits" else float(text)
    assert file.content() == wanted
    comments = [line.partition("#")[2] for line in MINE.splitlines() if "#" in line]
    assert all(f"#{comment}" in path.read_text(encoding="utf-8") for comment in comments)


def test_a_new_file_has_every_setting_as_a_comment(configure):
    path = configure("")
    path.unlink()
    writing.create(path)
    assert file.content() == {}
    # Without the marks, and with a value where there is no default, it is a configuration.
    lines = (line.removeprefix("# ") for line in template.text().splitlines()[1:])
    text = "\n".join(line for line in lines if " =  #" not in line)
    content = file.parse(text.replace("owner/name@revision", "sample"), path)
    without = {key for key, setting in BY_KEY.items() if setting.default is None}
    tables = {"limits", "aliases", "options"}
    assert set(content) - tables == {key for key in BY_KEY if "." not in key} - without
    assert all(f"# {key} =  # " in template.text() for key in without)
