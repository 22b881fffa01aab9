"""Distributions that do not fit each other: missing or wrong versions, and two that overwrite each other's files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
from collections.abc import Iterable, Iterator, Mapping

from phi3_core.distributions import canonical_name
from phi3_core.plugin import newer_core
from phi3_core.requirements import missing_requirement
from phi3_core.values import Finding

from .versions import Installed, canonical

_EXTRAS = re.compile(r"\[[^\]]*\]")
_NOT_IMPORTED = {"test", "tests", "docs", "examples", "benchmarks", "scripts"}
"""Folders that many distributions install by mistake."""
_MODULE = re.compile(r"^([A-Za-z_]\w*)/__init__\.py,", re.MULTILINE)


def conflicts(installed: Installed) -> Iterator[Finding]:
    """Yield conflicts that concern the project's distributions, those with backends, and what they require."""
    for each in installed.unreadable:
        message = f"the metadata of an installed package cannot be read: {each.path} ({each.error})"
        yield Finding(severity="warning", message=message, remedy="remove it, or install the package again")
    yield from _unmet(installed)
    yield from overwritten(installed, modules())


def _unmet(installed: Installed) -> Iterator[Finding]:
    """Yield requirements that are not met. Those with a marker, such as extras, and unusual bounds are passed over."""
    for name in installed.ours:
        own = installed.by_name[name]
        if newer_core(own.requires) is not None:
            continue  # its backends are broken, which says so
        for requirement in own.requires:
            if ";" in requirement:
                continue
            with contextlib.suppress(ValueError):
                refusal = missing_requirement(_EXTRAS.sub("", requirement))
                if refusal is not None:
                    words = f"{own.name} {own.version} requires {requirement}, and {refusal.reason}"
                    yield Finding(severity="error", message=words, remedy=refusal.remedy)


def overwritten(installed: Installed, owners: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Yield modules that several distributions have installed, the last one over the files of the others.

    Args:
        installed: the installed distributions.
        owners: the distributions that share modules, as :func:`modules` returns them.
    """
    ours = installed.ours
    wanted = {*ours, *installed.needed(ours)}
    required = {canonical(text) for name in wanted for text in installed.by_name[name].requires if ";" not in text}
    for module, versions in sorted(owners.items()):
        if not wanted.intersection(versions):
            continue
        names = " and ".join(f"{name} {version}" for name, version in versions.items())
        kept = next((name for name in versions if name in required), next(iter(versions)))
        yield Finding(
            severity="error",
            message=f"{names} are both installed and overwrite each other's files in {module}",
            remedy=f"pip uninstall -y {' '.join(versions)}, then pip install {kept}=={versions[kept]}",
        )


def modules() -> dict[str, dict[str, str]]:
    """Return the modules of which several distributions have installed different files, with these and their versions.

    Parts of a namespace, such as ``nvidia``, have the same files in common, or none.
    """
    records: dict[str, tuple[str, str]] = {}
    owners: dict[str, list[str]] = {}
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):  # damaged metadata raises errors of many kinds
            record = distribution.read_text("RECORD") or ""
            name = canonical_name(distribution.metadata["Name"])
            if name in records:
                continue
            records[name] = distribution.version, record
            for module in set(_MODULE.findall(record)) - _NOT_IMPORTED:
                owners.setdefault(module, []).append(name)
    return {
        module: {name: records[name][0] for name in sorted(names)}
        for module, names in owners.items()
        if len(names) > 1 and _differ(module, [records[name][1] for name in names])
    }


def _differ(module: str, records: Iterable[str]) -> bool:
    """Return whether the records have different hashes for a file of a module."""
    hashes: dict[str, str] = {}
    for record in records:
        for line in record.splitlines():
            file, _, rest = line.partition(",")
            digest = rest.partition(",")[0]
            if digest and file.startswith(f"{module}/") and hashes.setdefault(file, digest) != digest:
                return True
    return False
