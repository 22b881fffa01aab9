"""What has to be installed for this backend, and what to do about what is not. Looks at folders, imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from attrs import frozen
from phi3_core.backend import installed_versions, this_machine
from phi3_core.values import Machine, Refusal

LIBRARY = "intel-npu-acceleration-library"
LIBRARY_VERSION = "1.4.0"
NEWEST_PYTHON = (3, 12)
_BUILD = "build its wheel as the README of phi3-npu says, then: pip install FOLDER/intel_npu_acceleration_library-*.whl"


@frozen(kw_only=True)
class _Needed:
    """A distribution, and the versions of it that work: from ``least`` on, and before ``below``."""

    name: str
    least: tuple[int, ...]
    below: tuple[int, ...]

    @property
    def words(self) -> str:
        below = f",<{'.'.join(map(str, self.below))}" if self.below else ""
        return f"{self.name}>={'.'.join(map(str, self.least))}{below}"


# Transformers before 4.49 ignores that Phi-4-mini turns a part of each head only; 5.23 wants PyTorch 2.6 or newer.
NEEDED = (
    _Needed(name="torch", least=(2, 6), below=()),
    _Needed(name="transformers", least=(4, 49), below=(6,)),
    _Needed(name="safetensors", least=(0, 4, 3), below=()),
)


def missing(
    machine: Machine | None = None,
    python: tuple[int, int] = sys.version_info[:2],
    path: Sequence[str] | None = None,
) -> Refusal | None:
    """Why the library cannot be used here whatever the hardware, or None if nothing stands in the way.

    ``path`` has the folders to look in; by default, where modules are imported from.
    """
    machine = machine or this_machine()
    if machine.os not in {"windows", "linux"} or machine.architecture != "x86_64":
        return Refusal(
            reason=f"Intel's NPU library is for Windows and Linux on x86_64, not for {machine.os} on "
            f"{machine.architecture}",
            remedy="pip install phi3-openvino",
        )
    if python > NEWEST_PYTHON:
        newest = ".".join(map(str, NEWEST_PYTHON))
        return Refusal(
            reason=f"Intel's NPU library ends at Python {newest}, and this is {python[0]}.{python[1]}",
            remedy=f"use an environment with Python {newest}, or pip install phi3-openvino, which drives NPUs too",
        )
    installed = installed_versions([LIBRARY, *(needed.name for needed in NEEDED)], path)
    return _library(machine, installed) or next(filter(None, (_judge(needed, installed) for needed in NEEDED)), None)


def _library(machine: Machine, installed: Mapping[str, str]) -> Refusal | None:
    found = installed.get(LIBRARY)
    if found == LIBRARY_VERSION:
        return None
    wanted = f"{LIBRARY}=={LIBRARY_VERSION}"
    return Refusal(
        reason=f"{LIBRARY} is not installed" if found is None else f"{LIBRARY} is {found}, not {wanted}",
        remedy=f"pip install {wanted}" if machine.os == "windows" else _BUILD,
    )


def _judge(needed: _Needed, installed: Mapping[str, str]) -> Refusal | None:
    found = installed.get(needed.name)
    if found is not None:
        number = tuple(int(part) for part in found.partition("+")[0].split(".") if part.isdigit())
        if needed.least <= number and not (needed.below and number >= needed.below):
            return None
    reason = f"{needed.name} is not installed" if found is None else f"{needed.name} is {found}"
    return Refusal(reason=reason, remedy=f'pip install "{needed.words}"')
