"""Which backends are installed, as their metadata tells. No plugin is imported here.

A plugin's code runs in worker processes alone (:mod:`phi3_core.hooks`, :mod:`phi3_core.worker`), so that one which
hangs, exits or crashes at its import takes nothing with it.
"""

from __future__ import annotations

from attrs import frozen

ENTRY_POINT_GROUP = "phi3"


@frozen(kw_only=True)
class Backend:
    """An installed backend."""

    name: str
    target: str
    """The entry point's value, ``module`` or ``module:attribute``."""
    distribution: str
    version: str


@frozen(kw_only=True)
class Broken:
    """A backend that does not import, raises, hangs, dies or answers nonsense. The others go on working."""

    plugin: str
    distribution: str
    error: str


def installed() -> tuple[tuple[Backend, ...], tuple[Broken, ...]]:
    """Read the installed distributions' metadata for backends, and for names that two of them claim."""
    import importlib.metadata

    backends: dict[str, Backend] = {}
    broken: list[Broken] = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        # A distribution without metadata cannot have entry points; the type allows it all the same.
        name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "unknown")
        found = Backend(name=point.name, target=point.value, distribution=name, version=version)
        known = backends.setdefault(found.name, found)
        # One distribution may be seen twice: installed as editable and found on PYTHONPATH.
        if (known.distribution, known.target) != (found.distribution, found.target):
            error = f"the name {found.name!r} is taken by {known.distribution} {known.version}; uninstall one of them"
            broken.append(Broken(plugin=found.name, distribution=found.distribution, error=error))
    return tuple(sorted(backends.values(), key=lambda backend: backend.name)), tuple(broken)
