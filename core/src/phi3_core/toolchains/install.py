"""Install distributions into a new virtual environment: by pip, or by uv where nobody has told pip anything."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from phi3_core.errors import ModelError
from phi3_core.values import Progress

from . import process

# Neither the user's variables for Python nor the current folder get in the way, and what is printed is UTF-8.
FLAGS = ("-I", "-u", "-X", "utf8")
_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


def python(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def environment() -> dict[str, str]:
    """The user's variables, without what would lead a Python into another environment than its own."""
    misleading = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    ours = {name: value for name, value in os.environ.items() if name not in misleading}
    return ours | {"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1", "PIP_USER": "0", "NO_COLOR": "1"}


def install(
    name: str, requirements: Sequence[str], left_out: Sequence[str], *, folder: Path, log: Path, progress: Progress
) -> dict[str, str]:
    """Make the environment, and return the version of everything in it.

    Raises:
        ModelError: the installer failed; the message has its telling line, the hint its log.
    """
    stage = f"installing {name}"
    progress(stage, 0, 100)

    def tell(line: str) -> None:
        words = line.split()
        if len(words) > 1 and words[0] in {"Collecting", "Downloading", "Processing"}:
            progress(f"{stage}: {words[0].lower()} {words[1].replace(os.sep, '/').rpartition('/')[2]}")
        elif "Retrying (" in line:
            progress(f"{stage}: the package index does not answer, trying again")
        elif line.startswith("Installing collected"):
            progress(f"{stage}: writing files")
        elif not line:
            progress(stage)

    text = ""
    for command in _commands(name, requirements, left_out, folder):
        with log.open("a", encoding="utf-8") as file:
            file.write(f"> {' '.join(command)}\n")
        # In the user's own current folder: settings such as PIP_CONSTRAINT may be relative to it.
        outcome = process.run(command, log=log, environment=environment(), folder=None, tell=tell)
        if outcome.code:
            raise ModelError(
                f"{name} could not be installed: {outcome.cause}", hint=f"the installer's own words are in {log}"
            )
        text = outcome.text
    versions: dict[str, str] = json.loads(text.splitlines()[-1])
    return versions


def _commands(name: str, requirements: Sequence[str], left_out: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """From nothing to the environment; the last one prints the versions in it."""
    here = str(python(folder))
    uv = None if _pip_is_configured() else shutil.which("uv")
    if uv:
        yield [uv, "venv", "--no-project", "--python", sys.executable, str(folder)]
        yield [uv, "pip", "install", "--python", here, *requirements]
        uninstall = [uv, "pip", "uninstall", "--python", here]
    else:
        pip = [sys.executable, *FLAGS, "-m", "pip", "--python", here]
        bare = ["--without-pip"]
        if not _pip_serves_others():
            pip, bare = [here, *FLAGS, "-m", "pip"], []
            if importlib.util.find_spec("ensurepip") is None:
                raise ModelError(
                    f"{name} needs an environment of its own, and this Python cannot make one",
                    hint="python -m pip install pip, or install uv",
                )
        yield [sys.executable, *FLAGS, "-m", "venv", *bare, str(folder)]
        yield [*pip, "install", "--no-input", "--disable-pip-version-check", *requirements]
        uninstall = [*pip, "uninstall", "--yes", "--disable-pip-version-check"]
    if left_out:
        yield [*uninstall, *left_out]
    yield [here, *FLAGS, "-c", _VERSIONS]


def _pip_serves_others() -> bool:
    """Whether our own pip can install into another environment: that takes seconds less than giving it a pip too."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= (22, 3)
    return False


def _pip_is_configured() -> bool:
    """Whether the user tells pip anything, by variables or by a file where pip looks for one."""
    import platformdirs  # start-up: only who installs needs it

    if any(name.startswith("PIP_") for name in os.environ):
        return True
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    folders: list[str | Path] = [
        *platformdirs.site_config_dir("pip", appauthor=False, multipath=True).split(os.pathsep),
        platformdirs.user_config_dir("pip", appauthor=False, roaming=True),
        *("/etc", sys.prefix, Path.home() / ("pip" if sys.platform == "win32" else ".pip")),
    ]
    return any((Path(folder) / name).is_file() for folder in folders)
