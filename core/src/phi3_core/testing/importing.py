"""The plugin's import, which happens in every survey of the machine, and its hooks."""

from __future__ import annotations

import json
import subprocess
import sys

from phi3_core.config import time_limit

from .base import ContractBase, find
from .subject import Subject

MARK = "phi3-imported "
"""The beginning of the line with what was imported: plugins may print, too."""
# What core itself imports is free. Prints the modules that come from native libraries.
_SCRIPT = """
import importlib, json, sys
import attr, attrs, pluggy, psutil
import phi3_core.backend, phi3_core.errors, phi3_core.hookspecs, phi3_core.plugin, phi3_core.values
before = set(sys.modules)
importlib.import_module(sys.argv[1])
def is_native(module):
    return str(getattr(getattr(module, "__spec__", None), "origin", "")).endswith((".so", ".pyd"))
def is_foreign(name):
    return name.partition(".")[0] not in sys.stdlib_module_names
found = {name for name in set(sys.modules) - before if is_foreign(name) and is_native(sys.modules[name])}
print("\\n" + sys.argv[2] + json.dumps(sorted({name.partition(".")[0] for name in found})), flush=True)
"""


class Importing(ContractBase):
    """Importing the plugin, and the names of its hooks."""

    def test_importing_the_plugin_loads_no_native_library(self) -> None:
        """Runtimes are imported inside the hooks: importing them costs every command seconds."""
        module = find(self.backend).target.partition(":")[0]
        path = "import sys; sys.path[:] = " + repr(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", path + _SCRIPT, module, MARK],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=time_limit("load"),
            check=False,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        said = done.stderr.strip()[-2000:]
        assert lines or done.returncode, f"importing {module} ended the process"
        assert lines, f"{module} cannot be imported: {said or f'exit code {done.returncode}'}"
        assert done.returncode == 0, f"a process that imported {module} ended with {done.returncode}: {said}"
        found = json.loads(lines[-1].removeprefix(MARK))
        assert found == [], f"importing {module} imports {', '.join(found)}: import them inside the hooks"

    def test_the_hooks_are_those_of_the_contract(self, subject: Subject) -> None:
        """Required hooks are there, and names and arguments are known."""
        assert {"detect", "load", "generate"} <= set(subject.hooks)
