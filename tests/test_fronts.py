"""Plugins import from core what its front for backends and the contract offer, and nothing from each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = ROOT / "plugins"
ALLOWED = {"phi3_core.backend", "phi3_core.errors", "phi3_core.hookspecs", "phi3_core.values"}
RUNTIMES = {"intel_npu_acceleration_library", "numpy", "onnxruntime_genai", "openvino", "openvino_genai", "torch"}
# Where a runtime may be imported at the top: what generates, what writes graphs, and what only they import.
HEAVY = {
    *("batching", "configuration", "converting", "engine", "forward", "graph", "library", "loading", "paged"),
    *("pipeline", "quantization", "tuning"),
}
FILES = sorted(file for folder in ("plugins", "examples") for file in ROOT.glob(f"{folder}/*/src/**/*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_plugin_imports_from_the_fronts_alone(file):
    own = file.relative_to(ROOT).parts[3]
    found = {name for name in imported(ast.parse(file.read_text(encoding="utf-8"))) if name.startswith("phi3_")}
    assert {name for name in found if name.partition(".")[0] != own} <= ALLOWED


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "hooks.py"], ids=name_of)
def test_hooks_import_no_runtime(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = ast.Module(
        body=[node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], type_ignores=[]
    )
    assert {name.partition(".")[0] for name in imported(top)} <= {
        *("__future__", "collections", "pathlib", "typing"),
        *("attrs", "phi3_core"),
    }


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_runtimes_are_imported_by_what_runs_them(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = ast.Module(
        body=[node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], type_ignores=[]
    )
    heavy = RUNTIMES & {name.partition(".")[0] for name in imported(top)}
    assert not heavy or file.stem.partition("_")[0] in HEAVY or file.parent.name == "onnx" or file.stem == "ir"


HOOKS = {path.parent.name: path for path in PLUGINS.glob("*/src/*/hooks.py")}


def test_hooks_return_the_same_kinds_of_thing_in_all_plugins():
    engines = ("NpuEngine", "OnnxEngine", "OpenVinoEngine")
    returned: dict[str, set[str]] = {}
    for path in HOOKS.values():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                words = ast.unparse(node.returns)
                returned.setdefault(node.name, set()).add("Engine" if words in engines else words)
    assert {"detect", "diagnose", "generate", "load", "logits", "quantize", "recognize"} <= returned.keys()
    assert {name: kinds for name, kinds in returned.items() if len(kinds) > 1} == {}
