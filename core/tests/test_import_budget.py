"""What starting costs, by its cause: the modules that are imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = {
    *("asyncio", "attr", "gguf", "httpx", "huggingface_hub", "jinja2", "multiprocessing", "numpy", "pluggy"),
    *("fastapi", "pydantic", "starlette", "uvicorn"),
    *("prompt_toolkit", "psutil", "rich", "subprocess", "tokenizers", "tomli", "tomlkit", "tomllib"),
    *("typing_extensions", "unittest"),
}


def imported(code: str) -> set[str]:
    """The heavy modules that a fresh interpreter has imported after ``code``."""
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-I", "-c", script]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return HEAVY & set(done.stderr.split())


HELP = """
from phi3_core.cli import main
try:
    main(["{}"])
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import phi3_core", HELP.format("--help"), HELP.format("--version")])
def test_nothing_large_is_imported_before_there_is_work(code):
    assert imported(code) == set()


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import phi3_core.worker.pool", {"multiprocessing", "subprocess"}),
        ("import phi3_core.backend; phi3_core.backend.Guid", set()),
        ("import phi3_core.backend; phi3_core.backend.installed_versions", set()),
        ("import phi3_core.hookspecs", {"attr", "pluggy"}),
        ("import phi3_core.plugin", {"attr"}),
        ("import phi3_core.store.store", {"attr"}),
        ("import phi3_core.surveys, phi3_core.selection", {"attr"}),
        ("from phi3_core.config import time_limit; time_limit('load')", set()),
        (HELP.format('config", "show", "model'), {"attr"}),
    ],
)
def test_a_room_imports_what_it_needs(code, allowed):
    assert imported(code) <= allowed
