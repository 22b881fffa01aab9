"""Execution providers of Windows ML's catalogue.

Windows ML offers execution providers of the hardware's vendors as packages that Windows Update installs. Listing them
downloads nothing. One is used only if an option of the engine names it, and downloaded only if another option allows
it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen
from phi3_core.errors import BackendError, UsageError

logger = logging.getLogger("phi3_core.dml")

PROVIDER_OPTION, DOWNLOAD_OPTION = "execution_provider", "download_execution_provider"
NOT_PRESENT = "NotPresent"
"""The state of a provider that has to be downloaded; ``NotReady`` and ``Ready`` are installed."""
_SUFFIX = "executionprovider"
_NEEDS = "Windows ML's catalogue needs Windows 11 version 24H2 (build 26100) or later, up to date"


@frozen(kw_only=True)
class Entry:
    """An execution provider of the catalogue."""

    name: str
    """Its name in ONNX Runtime, such as ``QNNExecutionProvider``."""
    version: str = ""
    """Its version; empty if unknown, as it may be before it is downloaded."""
    package: str = ""
    """The family name of the Windows package that contains it; empty if unknown."""
    state: str = NOT_PRESENT
    """``Ready``, ``NotReady`` or ``NotPresent``."""

    @property
    def label(self) -> str:
        """Its name and, if known, its version."""
        return f"{self.name} {self.version}".rstrip()


@frozen(kw_only=True)
class ProviderRequest:
    """What the options of the engine ask for."""

    name: str
    """The name of an execution provider, with or without ``ExecutionProvider`` at its end."""
    download: bool = False
    """Whether it may be downloaded."""


def entries() -> list[Entry]:
    """Return the execution providers that Windows ML offers for this machine. Downloads nothing.

    Raises:
        ImportError: the package windowsml is not installed.
        OSError: its library cannot be loaded, or Windows ML cannot read its catalogue.
    """
    with importlib.import_module("windowsml").EpCatalog() as opened:
        return [_entry(provider) for provider in opened.find_all_providers()]


def register(request: ProviderRequest, register_library: Callable[[str, str], None]) -> str:
    """Make an execution provider of Windows ML's catalogue available to the runtime.

    Args:
        request: which one, and whether it may be downloaded.
        register_library: called with the provider's name and the path of its library.

    Returns:
        The provider's name in ONNX Runtime.

    Raises:
        BackendError: Windows ML or the runtime failed.
        UsageError: there is no such provider, or it would have to be downloaded.
    """
    try:
        windowsml = importlib.import_module("windowsml")
    except (ImportError, OSError) as error:
        raise BackendError(f"the package windowsml cannot be loaded: {error}", hint="phi3 doctor") from error
    try:
        with windowsml.EpCatalog() as opened:
            return prepare(opened.find_all_providers(), request, register_library)
    except OSError as error:
        raise BackendError(f"Windows ML's catalogue failed: {error}", hint=_NEEDS) from error


def prepare(providers: Sequence[Any], request: ProviderRequest, register_library: Callable[[str, str], None]) -> str:
    """Choose, download if necessary and allowed, and register an execution provider.

    Args:
        providers: ``windowsml.ExecutionProvider`` objects.
        request: which one, and whether it may be downloaded.
        register_library: called with the provider's name and the path of its library.

    Returns:
        The provider's name in ONNX Runtime.

    Raises:
        BackendError: the runtime does not accept the library, or there is none.
        OSError: Windows ML failed to download or prepare it.
        UsageError: there is no such provider, or it would have to be downloaded.
    """
    found = [_entry(provider) for provider in providers]
    index = choose(found, request.name)
    chosen, provider = found[index], providers[index]
    if chosen.state == NOT_PRESENT:
        package = f"the Windows package {chosen.package}" if chosen.package else "a Windows package"
        if not request.download:
            raise UsageError(
                f"{chosen.label} has to be downloaded first: {package}, which Windows Update installs and keeps",
                hint=f"--option {DOWNLOAD_OPTION}=yes allows it",
            )
        logger.warning("%s is downloaded now: %s, which Windows Update installs and keeps", chosen.label, package)
    provider.ensure_ready()
    library = provider.library_path  # known only when it is ready
    if not library:
        raise BackendError(f"Windows ML gives no library for {chosen.label}")
    try:
        register_library(chosen.name, library)
    except RuntimeError as error:
        raise BackendError(f"ONNX Runtime does not accept {chosen.name}: {' '.join(str(error).split())}") from error
    return chosen.name


def choose(found: Sequence[Entry], name: str) -> int:
    """Return the index of the execution provider with a name; an installed one is preferred.

    Raises:
        UsageError: there is none; the message lists all.
    """
    named = [index for index, entry in enumerate(found) if _short(entry.name) == _short(name)]
    if not named:
        raise UsageError(
            f"Windows ML offers no execution provider {name} for this machine",
            hint=f"there is {listed(found)}" if found else "there is none; install the newest drivers",
        )
    return min(named, key=lambda index: found[index].state == NOT_PRESENT)


def listed(found: Iterable[Entry]) -> str:
    """Return execution providers as text, and which of them would have to be downloaded."""
    return ", ".join(f"{one.label} (not downloaded)" if one.state == NOT_PRESENT else one.label for one in found)


def _short(name: str) -> str:
    return name.casefold().removesuffix(_SUFFIX)


def _entry(provider: Any) -> Entry:
    return Entry(
        name=provider.name,
        version=provider.version,
        package=provider.package_family_name,
        state=provider.ready_state.name,
    )
