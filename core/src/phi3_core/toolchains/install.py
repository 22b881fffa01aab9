"""Install distributions into a new virtual environment, with pip, or with uv if pip is not configured."""

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

from phi3_core import interpreter
from phi3_core.errors import ModelError
from phi3_core.user_folders import config_folder, home_folder
from phi3_core.values import Progress

from . import process

# Isolated from the user's PYTHON* variables and the current folder, unbuffered, with UTF-8 output.
FLAGS = ("-I", "-u", "-X", "utf8")
_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name.lower(): d.version for d in m.distributions()}))"
)


def python(folder: Path) -> Path:
    """Return the Python interpreter of a virtual environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def environment() -> dict[str, str]:
    """Return the user's environment variables without those that redirect Python to another environment."""
    misleading = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    ours = {name: value for name, value in os.environ.items() if name not in misleading}
    return ours | {"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1", "PIP_USER": "0", "NO_COLOR": "1"}


def install(
    name: str, requirements: Sequence[str], left_out: Sequence[str], *, folder: Path, log: Path, progress: Progress
) -> dict[str, str]:
    """Create a virtual environment, and return the versions of all distributions in it.

    Args:
        name: the name of the toolchain, for messages.
        requirements: as for ``pip install``.
        left_out: distributions to uninstall afterwards.
        folder: the environment to create.
        log: the installer's output is appended to this file.
        progress: called with the current stage.

    Raises:
        ModelError: the installer failed. The message has the cause, the hint the path of the log.
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
        # Runs in the user's current folder: settings such as PIP_CONSTRAINT may be relative to it.
        outcome = process.run(command, log=log, environment=environment(), folder=None, tell=tell)
        if outcome.code:
            raise ModelError(f"{name} could not be installed: {outcome.cause}", hint=f"see {log}")
        text = outcome.text
    versions: dict[str, str] = json.loads(text.splitlines()[-1])
    return versions


def _commands(name: str, requirements: Sequence[str], left_out: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """Yield the commands that create the environment; the last one prints the installed versions."""
    here = str(python(folder))
    uv = None if _pip_is_configured() else shutil.which("uv")
    if uv:
        yield [uv, "venv", "--no-project", "--python", interpreter.python(), str(folder)]
        yield [uv, "pip", "install", "--python", here, *requirements]
        uninstall = [uv, "pip", "uninstall", "--python", here]
    else:
        pip = [interpreter.python(), *FLAGS, "-m", "pip", "--python", here]
        bare = ["--without-pip"]
        needs = ["venv"]
        if not _pip_serves_others():
            pip, bare, needs = [here, *FLAGS, "-m", "pip"], [], ["venv", "ensurepip"]
        # Debian has packages of their own for these; Windows' embeddable Python is without them.
        if any(importlib.util.find_spec(module) is None for module in needs):
            raise ModelError(
                f"{name} needs an environment of its own, and this Python cannot make one",
                hint="install uv" if len(needs) == 1 else "python -m pip install pip, or install uv",
            )
        yield [interpreter.python(), *FLAGS, "-m", "venv", *bare, str(folder)]
        yield [*pip, "install", "--no-input", "--disable-pip-version-check", *requirements]
        uninstall = [*pip, "uninstall", "--yes", "--disable-pip-version-check"]
    if left_out:
        yield [*uninstall, *left_out]
    yield [here, *FLAGS, "-c", _VERSIONS]


def _pip_serves_others() -> bool:
    """Return whether our pip supports ``--python`` (since 22.3), which saves the seconds to install another pip."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
        return tuple(map(int, importlib.metadata.version("pip").split(".")[:2])) >= (22, 3)
    return False


def _pip_is_configured() -> bool:
    """Return whether the user configures pip, by environment variables or a configuration file."""
    import platformdirs  # start-up: needed only to install

    if any(name.startswith("PIP_") for name in os.environ):
        return True
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    folders: list[str | Path | None] = [
        *platformdirs.site_config_dir("pip", appauthor=False, multipath=True).split(os.pathsep),
        config_folder("pip", roaming=True),
        *("/etc", sys.prefix),
    ]
    if (home := home_folder()) is not None:
        folders.append(home / ("pip" if sys.platform == "win32" else ".pip"))
    return any((Path(folder) / name).is_file() for folder in folders if folder is not None)
