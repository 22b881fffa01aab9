"""Versions of what is installed, grouped: phi3's distributions and those of backends, each with what it runs on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from phi3_core.distributions import canonical_name
from phi3_core.metadata import Distribution, UnreadableMetadata, distributions
from phi3_core.plugin import ENTRY_POINT_GROUP

_OURS = "phi3-"
_CORE = "phi3-core"


@frozen(kw_only=True)
class Stack:
    """A distribution of this project or of a backend, and the versions of what it requires."""

    distribution: str
    version: str
    backends: tuple[str, ...]
    """The names of the backends that it has."""
    runtime: Mapping[str, str]
    """What it names as its requirements, as far as that is installed."""
    others: Mapping[str, str]
    """What these require, directly and indirectly."""


@frozen(kw_only=True)
class Installed:
    """The installed distributions."""

    by_name: Mapping[str, Distribution]
    """The distributions by canonical name; of two of the same name, the one that is imported."""
    unreadable: tuple[UnreadableMetadata, ...]

    @property
    def ours(self) -> list[str]:
        """The canonical names of the project's distributions and of those with backends."""
        return sorted(name for name, each in self.by_name.items() if name.startswith(_OURS) or each.entry_points)

    def stacks(self) -> tuple[Stack, ...]:
        """Return core, then the others. What core requires is not repeated for the others."""
        names = sorted(self.ours, key=lambda name: (name != _CORE, name))
        cores = {_CORE, *self.needed([_CORE])} if _CORE in names else set()
        return tuple(self._stack(name, set() if name == _CORE else cores) for name in names)

    def _stack(self, name: str, left_out: set[str]) -> Stack:
        own = self.by_name[name]
        direct = sorted({canonical(text) for text in own.requires} & set(self.by_name) - left_out - {name})
        others = sorted(set(self.needed([name])) - {*direct, name} - left_out)
        return Stack(
            distribution=own.name,
            version=own.version,
            backends=tuple(point for point, _ in own.entry_points),
            runtime=self.versions(direct),
            others=self.versions(others),
        )

    def needed(self, names: Iterable[str]) -> list[str]:
        """Return the canonical names of what distributions require, directly and indirectly, if it is installed.

        Requirements of their extras are included; those of other distributions' extras may be installed by chance.
        """
        waiting = [canonical(text) for name in names for text in self.by_name[name].requires]
        found: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in self.by_name and name not in found:
                found.add(name)
                waiting += [canonical(text) for text in self.by_name[name].requires if "extra ==" not in text]
        return sorted(found)

    def packages(self) -> dict[str, str]:
        """Return the versions of phi3's distributions, then those of all their installed requirements."""
        ours = self.ours
        return self.versions([*ours, *(name for name in self.needed(ours) if name not in ours)])

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the versions of installed distributions."""
        return {name: self.by_name[name].version for name in names}


def read_installed() -> Installed:
    """Read the metadata of all installed distributions."""
    found: dict[str, Distribution] = {}
    readable, unreadable = distributions(ENTRY_POINT_GROUP, all_of_them=True)
    for distribution in readable:
        found.setdefault(canonical_name(distribution.name), distribution)
    return Installed(by_name=found, unreadable=tuple(unreadable))


def canonical(requirement: str) -> str:
    """Return the canonical name of the distribution that a requirement names."""
    return canonical_name(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])
