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

from attrs import frozen

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    import importlib.metadata

_SUFFIX = ".dist-info"


def canonical_name(name: str) -> str:
    """Return the canonical name of a distribution, as package indexes write it: ``phi3-core`` for ``Phi3_Core``."""
    return re.sub(r"[-_.]+", "-", name).lower()


@frozen(kw_only=True)
class Distribution:
    """What an installed distribution's metadata tells."""

    name: str
    version: str
    entry_points: tuple[tuple[str, str], ...] = ()
    """Names and values of its entry points of the group that was asked for."""
    requires: tuple[str, ...] = ()


@frozen(kw_only=True)
class UnreadableMetadata:
    """A distribution whose metadata cannot be read: half removed, or written wrongly."""

    path: str
    """The folder or file with the metadata."""
    error: str
    in_group: bool
    """Whether it has entry points of the group that was asked for."""


def distributions(group: str, *, all_of_them: bool = False) -> tuple[list[Distribution], list[UnreadableMetadata]]:
    """Return the installed distributions with entry points of a group, and those whose metadata cannot be read.

    Unlike ``importlib.metadata.entry_points``, it goes on after a distribution whose metadata is damaged.

    Args:
        group: the group of entry points.
        all_of_them: also return the distributions without such entry points.
    """
    import importlib.metadata  # start-up: a large module, which worker processes do not need

    found: list[Distribution] = []
    unreadable: list[UnreadableMetadata] = []
    for distribution in importlib.metadata.distributions():
        in_group = False
        try:
            in_group = f"[{group}]" in (distribution.read_text("entry_points.txt") or "")
            if in_group or all_of_them:
                found.append(_read(distribution, group))
        except Exception as error:  # each parser of these files raises errors of its own
            path = str(getattr(distribution, "_path", "an installed distribution"))
            words = " ".join(str(error).split()) or type(error).__name__
            unreadable.append(UnreadableMetadata(path=path, error=words, in_group=in_group))
    return found, unreadable


def _read(distribution: importlib.metadata.Distribution, group: str) -> Distribution:
    points = distribution.entry_points.select(group=group)
    name, version = distribution.metadata["Name"], distribution.metadata["Version"]
    if not name or not version:
        raise ValueError("it states no name or no version")
    return Distribution(
        name=name,
        version=version,
        entry_points=tuple((point.name, point.value) for point in points),
        requires=tuple(distribution.requires or ()),
    )


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
