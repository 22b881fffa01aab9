"""Versions of installed distributions, read from the names of their metadata folders.

The folder name ``NAME-VERSION.dist-info`` contains the version
(https://packaging.python.org/en/latest/specifications/recording-installed-packages/), so listing a directory gives
the versions of all distributions in it. Parsing their metadata takes ten times as long.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

_SUFFIX = ".dist-info"


def canonical_name(name: str) -> str:
    """Return the canonical name of a distribution, as package indexes write it: ``phi3-core`` for ``Phi3_Core``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions(names: Iterable[str], path: Sequence[str] | None = None) -> Mapping[str, str]:
    """Return the versions of installed distributions by canonical name.

    Args:
        names: canonical names to look for; those that are not installed are left out of the result.
        path: folders to search, by default ``sys.path``. The first match counts, as for imports.
    """
    folders = list(sys.path if path is None else path)
    seen: dict[str, str] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:  # missing, or an archive
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    folder_name, _, number = entry.name.removesuffix(_SUFFIX).partition("-")
                    seen.setdefault(canonical_name(folder_name), number)
    found = {}
    for name in names:
        if (version := seen.get(name) or _elsewhere(name, folders)) is not None:
            found[name] = version
    return found


def _elsewhere(name: str, folders: list[str]) -> str | None:
    """Return the version of a distribution without such a folder: from old tools, some systems and source trees."""
    import importlib.metadata  # start-up: a large module, rarely needed

    for distribution in importlib.metadata.distributions(name=name, path=folders):
        with contextlib.suppress(Exception):  # damaged metadata raises errors of many kinds
            return str(distribution.version)
    return None
