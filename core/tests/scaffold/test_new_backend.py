"""``phi3 plugins new``: what it writes installs, registers and answers."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from phi3_core import __version__
from phi3_core.errors import DiskFullError
from phi3_core.plugin import newer_core
from phi3_core.requirements import missing_requirement, release
from phi3_core.scaffold.backend import write_backend
from phi3_core.testing.checkpoints import TINY, write_random


@pytest.fixture
def new(plugins, tmp_path, monkeypatch, run_main):
    """Writes a backend with the command, and returns what the command printed as JSON."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))  # nothing is on it

    def write(*arguments):
        code, out, err = run_main("plugins", "new", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return write


@pytest.fixture
def install(plugins, monkeypatch):
    """Puts a written backend where it is found, with the entry points that its ``pyproject.toml`` states."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read TOML")

    def add(folder):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        source = folder.absolute() / "src"
        monkeypatch.syspath_prepend(str(source))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(source), str(plugins.site)]))
        info = plugins.site / f"{project['name'].replace('-', '_')}-0.1.0.dist-info"
        info.mkdir()
        requires = "".join(f"Requires-Dist: {each}\n" for each in project["dependencies"])
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n{requires}", encoding="utf-8"
        )
        entries = "".join(f"{key} = {value}\n" for key, value in project["entry-points"]["phi3"].items())
        (info / "entry_points.txt").write_text(f"[phi3]\n{entries}", encoding="utf-8")
        return project

    return add


@pytest.fixture
def checkpoint(phi3_folder, tmp_path):
    """Original weights with a tokenizer."""
    config = {**TINY["phi-3-mini-4k"], "vocab_size": 600, "max_position_embeddings": 512}
    folder = write_random(tmp_path / "checkpoint", config)
    for file in phi3_folder.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder


@pytest.mark.parametrize("name", ["acme", "acme-two"])
def test_it_answers_as_the_reference_does(new, install, run_main, checkpoint, name):
    found = new(name)
    folder = Path(found["folder"])
    assert (found["backend"], found["distribution"], str(folder)) == (name, f"phi3-{name}", f"phi3-{name}")
    assert {Path(file).relative_to(folder).parts[0] for file in found["files"]} == {
        *(".github", ".gitignore", "README.md", "pyproject.toml", "src", "tests")
    }
    install(folder)
    answers = []
    for prompt in ("Hello world", "Hello world", "the capital of France"):
        code, out, err = run_main("run", prompt, "-m", checkpoint, "-d", f"{name}:0", "--max-new-tokens", 8, "--json")
        assert code == 0, err
        answers.append(json.loads(out))
    assert answers[0]["text"] == answers[1]["text"]
    assert {each["completion_tokens"] for each in answers} == {8}
    code, out, err = run_main("eval", checkpoint, "-d", name, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["device"], report["precision"]) == (f"{name}:0", "fp16")
    assert report["kl_mean"] < 1e-8
    assert report["top1_agreement"] == 1
    code, out, _ = run_main("plugins", "--json")
    assert [each["hooks"] for each in json.loads(out)["plugins"]] == [
        ["detect", "generate", "load", "logits", "quantize"]
    ]


def test_it_imports_from_the_fronts_of_core_alone_and_its_runtime_late(new):
    imported = {}
    for file in map(Path, new("acme")["files"]):
        if file.suffix == ".py" and file.parent.name == "phi3_acme":
            nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            imported[file.stem] = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
            if file.stem in {"detection", "hooks"}:
                top = [
                    node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.Import)
                ]
                assert top == []
    of_core = {name for names in imported.values() for name in names if name.startswith("phi3_core")}
    assert of_core == {f"phi3_core.{name}" for name in ("backend", "errors", "hookspecs", "values")}
    assert len(imported) == 6


def test_its_bounds_fit_this_version_and_end_before_the_next_minor_one(new, install):
    project = install(Path(new("acme")["folder"]))
    (needed,) = [each for each in project["dependencies"] if each.startswith("phi3-core")]
    bounds = needed.partition("]")[2]
    assert newer_core([needed]) is None
    major, minor = release(__version__)[:2]
    assert bounds == f">={major}.{minor},<{major}.{minor + 1}"


@pytest.mark.parametrize(
    ("given", "name", "title"),
    [
        ("Acme", "acme", "Acme"),
        ("phi3-acme", "acme", "Acme"),
        ("My_NPU", "my-npu", "MyNpu"),
        ("a.b", "a-b", "AB"),
        ("3d", "3d", "Backend3d"),
        ("x", "x", "X"),
        ("acme--acme", "acme-acme", "AcmeAcme"),
        ("import", "import", "Import"),
    ],
)
def test_any_name_of_a_distribution_gives_files_that_compile(new, given, name, title):
    found = new(given)
    assert found["backend"] == name
    package = Path(found["folder"], "src", f"phi3_{name.replace('-', '_')}")
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in found["files"] if file.endswith(".py")]
    classes = {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes == {f"{title}Engine", f"Test{title}", "Graph", "_Weights"}
    assert (package / "hooks.py").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "cannot be the name of a backend: it takes ASCII letters"),
        ("acme-", "cannot be the name"),
        (".acme", "cannot be the name"),
        ("a b", "cannot be the name"),
        ("../acme", "cannot be the name"),
        ("a\\b", "cannot be the name"),
        ("akmé", "cannot be the name"),
        ("phi3-", "cannot be the name"),
        ("acme\n", "cannot be the name"),
        ("npu", "--device npu means something else"),
        ("AUTO", "--device auto means something else"),
        ("phi3-core", "'core' cannot be the name of a backend"),
        ("parrot", "the name 'parrot' is taken by phi3-parrot 1.0"),
        ("Phi3.Parrot", "the name 'parrot' is taken by phi3-parrot 1.0"),
        ("other", "phi3-other 1.0 is installed already"),
    ],
)
def test_other_names_are_refused_with_a_hint(plugins, run_main, tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    plugins.add("parrot")
    plugins.add("another", distribution="phi3-other")
    before = sorted(tmp_path.iterdir())
    code, out, err = run_main("plugins", "new", "--", name)
    assert (code, out) == (2, "")
    assert words in err
    assert err.endswith("(choose another name, such as that of the hardware or its runtime)\n")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_is_written_over(plugins, run_main, tmp_path, kind):
    target = tmp_path / "mine"
    (target / "notes.txt" if kind == "folder" else target).parent.mkdir(exist_ok=True)
    (target / "notes.txt" if kind == "folder" else target).write_text("mine", encoding="utf-8")
    code, _, err = run_main("plugins", "new", "acme", target)
    assert code == 2
    assert f"{target} {'is not empty' if kind == 'folder' else 'is a file'}" in err
    assert "phi3 plugins new NAME FOLDER names another folder" in err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".py"] == [
        "notes.txt" if kind == "folder" else "mine"
    ]


def test_an_empty_folder_and_a_new_one_in_a_new_one_are_used(new, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deeper"):
        assert Path(new("acme", folder)["folder"]) == folder
        assert (folder / "pyproject.toml").is_file()


@pytest.mark.parametrize("name", ["no\0name", pytest.param("n" * 300, id="long")])
def test_a_folder_that_cannot_be_is_one_line(plugins, run_main, tmp_path, name):
    code, _, err = run_main("plugins", "new", "acme", f"{tmp_path}/{name}")
    assert code == 2
    assert "cannot be written" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("pages", [2, 8, 12])
def test_a_full_disk_is_named(make_disk, pages):
    folder = make_disk(pages * 4096) / "phi3-acme"
    with pytest.raises(DiskFullError):
        write_backend("acme", folder)
    assert list(folder.iterdir()) == []  # for the next try


def test_the_words_say_what_to_do_next(plugins, run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main("plugins", "new", "acme", "my backend")
    assert code == 0
    assert "src/phi3_acme/hooks.py" in out.splitlines()
    assert err == 'phi3: the backend acme is in my backend; next: python -m pip install -e "my backend"\n'


def test_what_it_asks_for_at_run_time_is_what_it_declares(new, install, monkeypatch):
    folder = Path(new("acme")["folder"])
    project = install(folder)
    text = (folder / "src" / "phi3_acme" / "detection.py").read_text(encoding="utf-8")
    (stated,) = [line.split('"')[1] for line in text.splitlines() if line.startswith("REQUIREMENT = ")]
    assert stated in project["dependencies"]
    assert missing_requirement(stated, module="numpy") is None
    assert sys.modules.get("phi3_acme") is None  # nothing was imported here
