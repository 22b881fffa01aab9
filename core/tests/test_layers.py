"""Imports go one way: each module of core imports from the layers below its own, and no two need each other.

Imports inside functions count too. They are there for start-up time and say so.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

import phi3_core
import pytest

PACKAGE = Path(phi3_core.__file__).parent
# From top to bottom; a package is one layer.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("server",),
    ("backend", "scaffold", "testing"),
    ("benchmarking", "doctor"),
    ("api",),
    ("model", "remote"),
    ("tasks",),
    ("answer_text",),
    ("pipeline",),
    ("fetching", "session"),
    ("current_engine",),
    ("answers", "candidates"),
    ("loading",),
    ("models",),
    ("evaluation", "quantization"),
    ("checking",),
    ("toolchains",),
    ("hub",),
    ("store",),
    ("checkpoint",),
    ("selection",),
    ("ranking",),
    ("activity", "figures"),
    ("surveys",),
    ("worker",),
    ("plugin",),
    ("registration",),
    ("discovery",),
    ("replies",),
    ("turns",),
    ("pending",),
    ("decoding",),
    ("hardware", "machine", "sampling", "text"),
    ("requirements",),
    ("distributions", "metadata", "paths"),
    ("config",),
    ("textfiles",),
    ("disk",),
    ("files",),
    ("cgroups", "interpreter", "names", "options", "user_folders", "windows"),
    ("units",),
    ("hookspecs",),
    ("values",),
    ("generation_request",),
    ("fields",),
    ("errors", "wording"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def name_of(file: Path) -> str:
    return ".".join(("phi3_core", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def layer_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Everything in the body of ``if TYPE_CHECKING``."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    return {inner for block in blocks for inner in ast.walk(block)}


def targets(module: str, node: ast.AST) -> list[str]:
    """The modules of core that an import statement loads."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name in MODULES]
    if not isinstance(node, ast.ImportFrom):
        return []
    source = node.module or ""
    if node.level:
        is_package = MODULES[module].name == "__init__.py"
        parts = module.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
        source = ".".join([*parts, *filter(None, [node.module])])
    inner = [f"{source}.{alias.name}" for alias in node.names]
    found = [name if name in MODULES else source for name in inner]
    return [name for name in found if name in MODULES and name != module]


def imports(module: str, *, types: bool) -> list[str]:
    """What a module imports of core, inside functions too; ``types``: also what only annotations need."""
    tree = parsed(module)
    left_out = set() if types else for_types_only(tree)
    return [name for node in ast.walk(tree) if node not in left_out for name in targets(module, node)]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "phi3_core"])
def test_a_module_imports_from_the_layers_below_it(module):
    own = layer_of(module)
    assert own in RANK, f"{own} has no place in LAYERS"
    wrong = {
        target
        for target in imports(module, types=True)
        if target != "phi3_core" and layer_of(target) != own and RANK[layer_of(target)] <= RANK[own]
    }
    assert wrong == set()


def test_no_two_modules_need_each_other():
    # The package itself is left out: it imports its names when they are used.
    graph = {module: set(imports(module, types=False)) - {"phi3_core"} for module in MODULES if module != "phi3_core"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def late_imports(module: str) -> list[ast.stmt]:
    """Imports inside functions, of core or of what has to be installed."""
    functions = [node for node in ast.walk(parsed(module)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    inner = (node for function in functions for node in ast.walk(function))
    found = {node.lineno: node for node in inner if isinstance(node, ast.stmt) and is_late(node)}
    return [found[line] for line in sorted(found)]


def is_late(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        return bool(node.level) or (node.module or "").partition(".")[0] not in sys.stdlib_module_names
    return isinstance(node, ast.Import) and node.names[0].name.partition(".")[0] not in sys.stdlib_module_names


# Commands of the command line import what they need when they are called: see the package's docstring.
@pytest.mark.parametrize("module", [name for name in MODULES if layer_of(name) not in {"cli", "backend", ""}])
def test_an_import_inside_a_function_says_what_it_saves(module):
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    silent, explained = [], 0
    for node in late_imports(module):
        above = next(line for line in reversed(lines[: node.lineno - 1]) if line.strip())
        said = "start-up" in lines[node.lineno - 1] or "start-up" in above
        if not said and node.lineno - explained > 3:  # not part of a block that is explained at its top
            silent.append(f"{module}:{node.lineno}")
        if said or node.lineno - explained <= 3:
            explained = node.end_lineno or node.lineno
    assert silent == []
