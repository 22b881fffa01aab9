"""Write the distribution of a new backend from the templates."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from phi3_core.discovery import installed, name_problem
from phi3_core.disk import raise_if_full, reason
from phi3_core.distributions import canonical_name, installed_versions
from phi3_core.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]")
"""The names of distributions: https://packaging.python.org/en/latest/specifications/name-normalization/."""
_PREFIX = "phi3-"
_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {
    ".github/workflows/ci.yml": "ci.yml",
    ".gitignore": "gitignore",
    "README.md": "README.md",
    "pyproject.toml": "pyproject.toml",
    "src/phi3_acme/__init__.py": "__init__.py",
    "src/phi3_acme/detection.py": "detection.py",
    "src/phi3_acme/engine.py": "engine.py",
    "src/phi3_acme/graph.py": "graph.py",
    "src/phi3_acme/hooks.py": "hooks.py",
    "src/phi3_acme/py.typed": "py.typed",
    "src/phi3_acme/quantization.py": "quantization.py",
    "tests/test_contract.py": "contract.py",
    "tests/test_detection.py": "offers.py",
}
"""Files of a backend ``acme``, and their templates. None is named as a test: wheels have none."""


def backend_name(given: str) -> str:
    """Return the name of a new backend: ``given`` in the form of package indexes, without ``phi3-`` before it.

    Raises:
        UsageError: it cannot be the name of a distribution, means something else, or is taken.
    """
    name = canonical_name(given).removeprefix(_PREFIX)
    hint = "choose another name, such as that of the hardware or its runtime"
    if not _NAME.fullmatch(given) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{given!r} cannot be the name of a backend: it takes ASCII letters, digits, and single . _ - between them",
            hint=hint,
        )
    if problem := name_problem(name):
        raise UsageError(problem, hint=hint)
    taken = next((backend for backend in installed()[0] if backend.name.casefold() == name), None)
    if taken is not None:
        raise UsageError(f"the name {name!r} is taken by {taken.distribution} {taken.version}", hint=hint)
    distribution = f"{_PREFIX}{name}"
    if (version := installed_versions([distribution]).get(distribution)) is not None:
        raise UsageError(f"{distribution} {version} is installed already", hint=hint)
    return name


def write_backend(name: str, folder: Path) -> list[Path]:
    """Write the distribution ``phi3-NAME`` into a folder, which is made if it does not exist.

    Args:
        name: the name of the backend, as :func:`backend_name` returns it.
        folder: a folder that is empty or does not exist.

    Returns:
        The files.

    Raises:
        DiskFullError: the disk is full.
        UsageError: the folder is not empty, or cannot be written.
    """
    hint = "phi3 plugins new NAME FOLDER names another folder"
    files: list[Path] = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise UsageError(f"{folder} {what}", hint=hint)
        for target, template in _FILES.items():
            text = (_TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
            files.append(folder / _renamed(target, name))
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            files[-1].write_text(_renamed(text, name), encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:  # such as a null character in the name
        _discard(files, folder)
        if isinstance(error, OSError):
            raise_if_full(error, folder, hint=hint)
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{folder} cannot be written: {words}", hint=hint) from error
    return files


def _discard(files: list[Path], folder: Path) -> None:
    """Remove files and the folders that they were alone in, so that a second try finds the folder empty."""
    paths = {path for file in files for path in (file, *file.parents) if folder in path.parents}
    for path in sorted(paths, key=lambda path: -len(path.parts)):  # what is in a folder before the folder
        with contextlib.suppress(OSError, ValueError):
            path.rmdir() if path.is_dir() else path.unlink()


def _renamed(text: str, name: str) -> str:
    """Return a text with the names of the backend ``acme`` replaced."""
    title = "".join(part.capitalize() for part in name.split("-"))
    names = {
        "phi3_acme": f"phi3_{name.replace('-', '_')}",
        "Acme": f"Backend{title}" if title[0].isdigit() else title,  # it begins the names of classes
        "acme": name,
    }
    return re.sub("|".join(names), lambda found: names[found[0]], text)
