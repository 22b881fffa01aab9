"""Metadata of installed distributions, read so that one that is damaged costs only itself."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
from pathlib import Path

from attrs import frozen

from .errors import BackendError


@frozen(kw_only=True)
class Distribution:
    """What an installed distribution's metadata tells."""

    name: str
    version: str
    entry_points: tuple[tuple[str, str], ...] = ()
    """Names and values of its entry points of the group that was asked for."""
    requires: tuple[str, ...] = ()
    installed: float = math.inf
    """When its metadata was written, in seconds since the epoch; infinity if unknown."""


@frozen(kw_only=True)
class UnreadableMetadata:
    """A distribution whose metadata cannot be read: half removed, or written wrongly."""

    path: str
    """The folder or file with the metadata."""
    error: str
    in_group: bool
    """Whether it has entry points of the group that was asked for."""


def entry_point(name: str, value: str, group: str) -> importlib.metadata.EntryPoint:
    """Return an entry point that can be loaded.

    Raises:
        BackendError: its value names no module.
    """
    point = importlib.metadata.EntryPoint(name=name, value=value, group=group)
    if not point.pattern.match(value):  # then all of its methods raise errors that name nothing
        meant = value.removesuffix(".py").replace("/", ".").replace("-", "_")
        hint = f": write {meant}" if point.pattern.match(meant) else ""
        raise BackendError(f"the entry point {name} = {value!r} names no module{hint}")
    return point


def distributions(group: str, *, all_of_them: bool = False) -> tuple[list[Distribution], list[UnreadableMetadata]]:
    """Return the installed distributions with entry points of a group, and those whose metadata cannot be read.

    Unlike ``importlib.metadata.entry_points``, it goes on after a distribution whose metadata is damaged.

    Args:
        group: the group of entry points.
        all_of_them: also return the distributions without such entry points.
    """
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
        installed=_time(distribution),
    )


def _time(distribution: importlib.metadata.Distribution) -> float:
    """Return when the folder with a distribution's metadata was last changed: when an installer wrote its files."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # in an archive, or of an importer of its own
        return Path(str(distribution._path)).stat().st_mtime  # type: ignore[attr-defined]  # noqa: SLF001
    return math.inf
