"""What has to be installed for this backend, and what to do about what is not. Looks at folders, imports nothing.

A distribution's version is in the name of its folder ``NAME-VERSION.dist-info``, where the names of files can be had at
once. Importing importlib.metadata and parsing what is in there would take more time than all the rest of detection.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from attrs import frozen
from phi3_core.machine import this_machine
from phi3_core.values import Machine, Refusal

LIBRARY = "intel-npu-acceleration-library"
LIBRARY_VERSION = "1.4.0"
NEWEST_PYTHON = (3, 12)
_METADATA = ".dist-info"
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
    installed = _Installed(sys.path if path is None else path)
    return _library(machine, installed) or next(filter(None, (_judge(needed, installed) for needed in NEEDED)), None)


def _library(machine: Machine, installed: _Installed) -> Refusal | None:
    found = installed.version(LIBRARY)
    if found == LIBRARY_VERSION:
        return None
    wanted = f"{LIBRARY}=={LIBRARY_VERSION}"
    return Refusal(
        reason=f"{LIBRARY} is not installed" if found is None else f"{LIBRARY} is {found}, not {wanted}",
        remedy=f"pip install {wanted}" if machine.os == "windows" else _BUILD,
    )


def _judge(needed: _Needed, installed: _Installed) -> Refusal | None:
    found = installed.version(needed.name)
    if found is not None:
        number = tuple(int(part) for part in found.partition("+")[0].split(".") if part.isdigit())
        if needed.least <= number and not (needed.below and number >= needed.below):
            return None
    reason = f"{needed.name} is not installed" if found is None else f"{needed.name} is {found}"
    return Refusal(reason=reason, remedy=f'pip install "{needed.words}"')


class _Installed:
    """The distributions in some folders. Of one that is there twice, the first is the one that is imported."""

    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)
        self._versions: dict[str, str] = {}
        for folder in self._path:
            with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:  # not there, or an archive
                for entry in entries:
                    if entry.name.endswith(_METADATA):
                        name, _, version = entry.name.removesuffix(_METADATA).partition("-")
                        self._versions.setdefault(name.lower().replace("_", "-"), version)

    def version(self, name: str) -> str | None:
        if name not in self._versions:
            # As old tools, some Linux distributions and source trees have it: without such a folder.
            import importlib.metadata

            for other in importlib.metadata.distributions(name=name, path=self._path):
                return other.version
        return self._versions.get(name)
