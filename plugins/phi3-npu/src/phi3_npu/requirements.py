"""Requirements of this backend and how to install them. Reads package metadata and imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from phi3_core.backend import installed_versions, missing_requirement, this_machine
from phi3_core.values import Machine, Refusal

LIBRARY = "intel-npu-acceleration-library"
LIBRARY_VERSION = "1.4.0"
NEWEST_PYTHON = (3, 12)
_BUILD = "build its wheel as the README of phi3-npu says, then: pip install FOLDER/intel_npu_acceleration_library-*.whl"


# Transformers before 4.49 ignores partial rotary embeddings (Phi-4-mini); 5.23 requires PyTorch 2.6 or newer.
NEEDED = ("torch>=2.6", "transformers>=4.49,<6", "safetensors>=0.4.3")


def missing(
    machine: Machine | None = None,
    python: tuple[int, int] = sys.version_info[:2],
    path: Sequence[str] | None = None,
) -> Refusal | None:
    """Return why the library cannot be used on this machine on any hardware, or None.

    Args:
        machine: the machine; by default this one.
        python: the version of Python.
        path: the folders to search for distributions; by default ``sys.path``.
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
            reason=f"Intel's NPU library ends at Python {newest}, and this is {python[0]}.{python[1]}; "
            "phi3-openvino drives NPUs too",
            remedy="pip install phi3-openvino",
        )
    library = installed_versions([LIBRARY], path).get(LIBRARY)
    return _library(machine, library) or next(
        filter(None, (missing_requirement(needed, path=path) for needed in NEEDED)), None
    )


def _library(machine: Machine, found: str | None) -> Refusal | None:
    if found == LIBRARY_VERSION:
        return None
    wanted = f"{LIBRARY}=={LIBRARY_VERSION}"
    return Refusal(
        reason=f"{LIBRARY} is not installed" if found is None else f"{LIBRARY} is {found}, not {wanted}",
        remedy=f"pip install {wanted}" if machine.os == "windows" else _BUILD,
    )
