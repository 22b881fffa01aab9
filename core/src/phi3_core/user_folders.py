"""The folders of the user who runs this. Not every user has them: a container's may have no home folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def home_folder() -> Path | None:
    """Return the user's home folder; None if there is none."""
    return _found(Path.home)


def config_folder(application: str, *, roaming: bool = False) -> Path | None:
    """Return the user's folder for an application's settings, which need not exist; None if there is none.

    Args:
        application: the name of the application.
        roaming: on Windows, the folder that follows the user from machine to machine.
    """
    import platformdirs  # start-up: not needed where variables name the folders

    return _found(lambda: platformdirs.user_config_dir(application, appauthor=False, roaming=roaming))


def cache_folder(application: str) -> Path | None:
    """Return the user's folder for what an application can make again; it need not exist. None if there is none."""
    import platformdirs  # start-up: not needed where variables name the folders

    return _found(lambda: platformdirs.user_cache_dir(application, appauthor=False))


def _found(find: Callable[[], str | Path]) -> Path | None:
    """Return what a library finds, which raises one error or another, or leaves ``~`` as it is, without a home."""
    try:
        folder = Path(find())
    except (RuntimeError, LookupError, ValueError, OSError):
        return None
    return folder if folder.is_absolute() else None
