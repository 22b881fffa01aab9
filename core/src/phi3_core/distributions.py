"""Versions of installed distributions, read from the names of their metadata folders.

A distribution's version is in the name of its folder ``NAME-VERSION.dist-info``, where all of them can be read at
once (https://packaging.python.org/en/latest/specifications/recording-installed-packages/). Parsing the metadata in
there takes ten times as long.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

_SUFFIX = ".dist-info"


def canonical_name(name: str) -> str:
    """Return a distribution's name as package indexes spell it: ``Phi3_Core`` is ``phi3-core``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions(names: Iterable[str], path: Sequence[str] | None = None) -> Mapping[str, str]:
    """Return the versions of those distributions that are installed, by their canonical names.

    Args:
        names: canonical names to look for.
        path: folders to look in; by default, where modules are imported from. Of a distribution that is there
            twice, the first is the one that is imported.
    """
    folders = list(sys.path if path is None else path)
    seen: dict[str, str] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:  # not there, or an archive
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
    """Look for a distribution without such a folder: old tools, some systems and source trees have those."""
    import importlib.metadata  # start-up: a large module, for what is rare

    for distribution in importlib.metadata.distributions(name=name, path=folders):
        return distribution.version
    return None
