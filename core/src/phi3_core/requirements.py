"""Distributions that a backend needs, and the refusal when one is missing or in a version that does not work.

Versions are compared by their release numbers only, without importing anything.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence

from .distributions import canonical_name, installed_versions
from .values import Refusal

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(.*)")
_BOUND = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*v?(\d+(?:\.\d+)*)\s*")


def missing_requirement(
    requirement: str, *, module: str | None = None, path: Sequence[str] | None = None
) -> Refusal | None:
    """Return why a required distribution cannot be used, and how to install it; None if it can.

    Args:
        requirement: the name of the distribution, with bounds if any: ``torch>=2.6,<3``. The operators are ``>=``,
            ``<=``, ``==``, ``!=``, ``>`` and ``<``.
        module: a module of the distribution, to check that its files are there; None does not check them.
        path: the folders to search for distributions; ``sys.path`` by default.

    Raises:
        ValueError: the requirement is not of this form.
    """
    found = _REQUIREMENT.fullmatch(requirement)
    bounds = [_BOUND.fullmatch(part) for part in found[2].split(",")] if found and found[2] else []
    if found is None or None in bounds:
        raise ValueError(f"{requirement!r} is not a name with bounds such as torch>=2.6,<3")
    name = found[1]
    install = f'pip install "{requirement}"' if bounds else f"pip install {name}"
    version = installed_versions([canonical_name(name)], path).get(canonical_name(name))
    if version is None:
        return Refusal(reason=f"{name} is not installed", remedy=install)
    if not all(bound is not None and _within(release(version), bound[1], release(bound[2])) for bound in bounds):
        return Refusal(reason=f"{name} is {version}", remedy=install)
    if module is not None and importlib.util.find_spec(module) is None:
        reason = f"the files of {name} are missing, although it is installed"
        return Refusal(reason=reason, remedy=f"pip install --force-reinstall --no-deps {name}")
    return None


def release(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version, without zeros at the end; empty if it has none."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _within(version: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    holds = {
        ">=": version >= bound,
        "<=": version <= bound,
        "==": version == bound,
        "!=": version != bound,
        ">": version > bound,
        "<": version < bound,
    }
    return holds[operator]
