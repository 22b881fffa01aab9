"""The installed backends, found in the metadata of distributions. Nothing of them is imported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from . import __version__
from .distributions import canonical_name
from .requirements import release
from .values import KINDS

ENTRY_POINT_GROUP = "phi3"
RESERVED_NAMES = frozenset({"auto", "core", *KINDS})
"""Names that no backend has, in any case: what they mean for ``--device``, and core's own."""
_EXCEPTED = "npu"
"""The backend of phi3-npu had its name before. ``--device npu`` means the kind, of which its device is one."""
_LOWER_BOUND = re.compile(r"(?:>=|~=|===?|>)\s*v?(\d+(?:\.\d+)*)")


@frozen(kw_only=True)
class Backend:
    """An installed backend."""

    name: str
    """The entry point's name."""
    target: str
    """The entry point's value, ``module`` or ``module:attribute``."""
    distribution: str
    version: str

    @property
    def release(self) -> str:
        """The distribution and its version, as in messages and records."""
        return f"{self.distribution} {self.version}"


@frozen(kw_only=True)
class Broken:
    """A backend that fails to import, raises, hangs, dies or returns an invalid result. Others are not affected."""

    plugin: str
    distribution: str
    error: str


def installed() -> tuple[tuple[Backend, ...], tuple[Broken, ...]]:
    """Return the installed backends, and those that are broken by their metadata.

    Of two distributions with a backend of the same name, in whatever case, the one that was installed first keeps it.
    One that requires a newer phi3-core, or whose name means something else, is broken too.
    """
    from .metadata import distributions  # start-up: worker processes need no metadata

    registered, unreadable = distributions(ENTRY_POINT_GROUP)
    backends: dict[str, Backend] = {}
    broken = [
        Broken(plugin=Path(each.path).stem, distribution=each.path, error=f"its metadata cannot be read: {each.error}")
        for each in unreadable
        if each.in_group
    ]
    # A distribution may be found twice: an editable install that is also on PYTHONPATH. The first is what is imported.
    found_first = {canonical_name(each.name): each for each in reversed(registered)}
    for each in sorted(found_first.values(), key=lambda each: (each.installed, each.name)):
        needed = newer_core(each.requires)
        for name, target in each.entry_points:
            found = Backend(name=name, target=target, distribution=each.name, version=each.version)
            error = "" if name == _EXCEPTED else name_problem(name)
            if needed is not None:
                error = f"it needs {needed}, and this phi3-core is {__version__}: upgrade phi3-core"
            elif not error and (known := backends.setdefault(name.casefold(), found)) != found:
                error = _taken(name, known, found)
            if error:
                broken.append(Broken(plugin=name, distribution=each.name, error=error))
    return tuple(sorted(backends.values(), key=lambda backend: backend.name)), tuple(broken)


def name_problem(name: str) -> str:
    """Return why a backend cannot have a name; empty if it can."""
    start = f"{name!r} cannot be the name of a backend: "
    if name.casefold() in RESERVED_NAMES:
        return f"{start}--device {name} means something else"
    return f"{start}a colon separates it from the id of a device" if ":" in name else ""


def _taken(name: str, known: Backend, found: Backend) -> str:
    """Return that a name is taken, and what makes it free."""
    other_case = "" if known.name == name else f" as {known.name!r}"
    change = "rename" if known.distribution == found.distribution else "uninstall"
    return f"the name {name!r} is taken by {known.release}{other_case}; {change} one of them"


def newer_core(requires: Sequence[str]) -> str | None:
    """Return the requirement of a newer phi3-core than this one among those of a distribution; None if there is none.

    Only the numbers of versions are compared. Requirements with a marker, such as those of extras, do not count.
    """
    here = release(__version__)
    for requirement in requires:
        text, _, marker = requirement.partition(";")
        name = re.split(r"[^A-Za-z0-9._-]", text.strip(), maxsplit=1)[0]
        if canonical_name(name) != "phi3-core" or marker.strip():
            continue
        if any(release(bound[1]) > here for bound in _LOWER_BOUND.finditer(text)):
            return text.strip()
    return None
