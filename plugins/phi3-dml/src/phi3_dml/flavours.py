"""Installed flavours of ONNX Runtime, read from package metadata without importing anything.

All flavours of onnxruntime install the module ``onnxruntime``, and all flavours of onnxruntime-genai the module
``onnxruntime_genai``. If two are in one environment, the one installed last has overwritten files of the other, and
uninstalling either breaks both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen
from phi3_core.backend import installed_versions

_GENAI = {
    "onnxruntime-genai": "cpu",
    "onnxruntime-genai-directml": "directml",
    "onnxruntime-genai-winml": "winml",
    "onnxruntime-genai-cuda": "cuda",
}
_RUNTIMES = {
    "cpu": "onnxruntime",
    "directml": "onnxruntime-directml",
    "winml": "onnxruntime-windowsml",
    "cuda": "onnxruntime-gpu",
}
"""The distribution of onnxruntime that each flavour of onnxruntime-genai requires."""
_PREFERRED = ("directml", "winml", "cuda", "cpu")
_ALL_RUNTIMES = frozenset(
    {*_RUNTIMES.values(), "onnxruntime-openvino", "onnxruntime-qnn", "onnxruntime-training"}
    | {"onnxruntime-rocm", "onnxruntime-migraphx"}
)
DIRECTML = "onnxruntime-genai-directml==0.13.1"
WINML = "onnxruntime-genai-winml==0.18.0"
WINDOWSML = '"windowsml[with-ort]==2.4.89"'
"""What Windows ML's flavour needs besides, although its metadata does not say so: it brings onnxruntime-windowsml."""
INSTALL_WINML = 'pip install "phi3-dml[winml]"'
"""Installs Windows ML's flavour where phi3-dml does not require DirectML's."""


@frozen(kw_only=True)
class Installed:
    """An installed distribution, with its canonical name."""

    name: str
    version: str


@frozen(kw_only=True)
class Conflict:
    """Installed distributions that conflict with each other, or lack a required one."""

    message: str
    commands: tuple[str, ...]
    """The commands that resolve the conflict, in order."""

    @property
    def remedy(self) -> str:
        """The commands as text."""
        return ", then ".join(self.commands)  # PowerShell 5.1 has no &&


@frozen(kw_only=True)
class Flavours:
    """The installed distributions of ONNX Runtime."""

    genai: tuple[Installed, ...] = ()
    runtimes: tuple[Installed, ...] = ()

    @property
    def flavour(self) -> str | None:
        """``directml``, ``winml``, ``cuda`` or ``cpu``; None if none is installed or there is a conflict."""
        return None if self.conflicts() or not self.genai else _GENAI[self.genai[0].name]

    @property
    def version(self) -> str | None:
        """The version of onnxruntime-genai; None if none is installed or there is a conflict."""
        return None if self.flavour is None else self.genai[0].version

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the conflicts of the installed distributions."""
        return tuple(self._conflicts())

    def _conflicts(self) -> Iterator[Conflict]:
        present = {_GENAI[one.name]: one for one in self.genai}
        if not present:
            return
        wanted = next(flavour for flavour in _PREFERRED if flavour in present)
        kept, needed = present[wanted], _RUNTIMES[wanted]
        if len(self.genai) > 1:
            yield _overwritten("onnxruntime_genai", self.genai, kept, self.runtimes)
        elif len(self.runtimes) > 1:
            yield _overwritten("onnxruntime", self.runtimes, kept, self.runtimes)
        elif self.runtimes and self.runtimes[0].name != needed:
            yield Conflict(
                message=f"{kept.name} {kept.version} needs {needed}, but {self.runtimes[0].name} is installed",
                commands=_reinstall(kept, self.runtimes),
            )
        elif not self.runtimes:
            again = WINDOWSML if wanted == "winml" else f"--force-reinstall {kept.name}=={kept.version}"
            yield Conflict(
                message=f"{kept.name} {kept.version} is installed without {needed}",
                commands=(f"pip install {again}",),
            )


def installed(path: Sequence[str] | None = None) -> Flavours:
    """Return the installed distributions of ONNX Runtime.

    Args:
        path: the folders to search for distributions; by default ``sys.path``.
    """
    versions = installed_versions([*_GENAI, *_ALL_RUNTIMES], path)
    found = {name: Installed(name=name, version=version) for name, version in versions.items()}
    ordered = [found[name] for name in sorted(found)]
    return Flavours(
        genai=tuple(one for one in ordered if one.name in _GENAI),
        runtimes=tuple(one for one in ordered if one.name in _ALL_RUNTIMES),
    )


def _overwritten(module: str, twice: Sequence[Installed], kept: Installed, runtimes: Sequence[Installed]) -> Conflict:
    names = " and ".join(f"{one.name} {one.version}" for one in twice)
    others = [one for one in twice if one != kept and one not in runtimes]
    return Conflict(
        message=f"{names} are both installed and overwrite each other's files in {module}",
        commands=_reinstall(kept, (*others, *runtimes)),
    )


def _reinstall(kept: Installed, others: Sequence[Installed]) -> tuple[str, ...]:
    """Return commands that uninstall all distributions that share files, and reinstall the one to keep."""
    names = " ".join(dict.fromkeys([kept.name, *(one.name for one in others)]))
    also = f" {WINDOWSML}" if _GENAI[kept.name] == "winml" else ""
    return f"pip uninstall -y {names}", f"pip install {kept.name}=={kept.version}{also}"
