"""``phi3 plugins new``: write the distribution of a new backend."""

from __future__ import annotations

import argparse

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


def add(verbs: Any) -> None:
    """Add the verb to the parser of ``phi3 plugins``."""
    new = verbs.add_parser(
        "new",
        help="write a distribution to start a backend from",
        description="Write a backend that installs, registers and answers, with numpy in place of a runtime.",
    )
    new.add_argument("name", metavar="NAME", help="the name of the backend, e.g. acme")
    new.add_argument("folder", metavar="FOLDER", nargs="?", help="an empty or a new folder [phi3-NAME]")
    options.finish(new, call, json="print what was written", quiet=False)


def call(given: argparse.Namespace) -> int:
    """Run ``phi3 plugins new`` and return its exit code."""
    from pathlib import Path

    from phi3_core.scaffold.backend import backend_name, write_backend

    from . import output

    name = backend_name(given.name)
    folder = Path(f"phi3-{name}" if given.folder is None else given.folder)
    files = write_backend(name, folder)
    if given.json:
        output.print_json({"backend": name, "distribution": f"phi3-{name}", "folder": folder, "files": files})
        return 0
    for file in files:
        print(file.relative_to(folder).as_posix())
    quoted = f'"{folder}"' if " " in str(folder) else str(folder)
    output.logger.warning("the backend %s is in %s; next: python -m pip install -e %s", name, folder, quoted)
    return 0
