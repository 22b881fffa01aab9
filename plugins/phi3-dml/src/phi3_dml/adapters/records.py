"""The plain records that detection reads and judges."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from phi3_core.backend import values_of

AMD, INTEL, MICROSOFT, NVIDIA = 0x1002, 0x8086, 0x1414, 0x10DE
QUALCOMM = 0x4D4F4351
"""``QCOM`` as the identifier of an ACPI device, which Adreno GPUs are."""
VENDORS = {AMD: "AMD", 0x1022: "AMD", INTEL: "Intel", NVIDIA: "NVIDIA", QUALCOMM: "Qualcomm", 0x17CB: "Qualcomm"}
REMOTE, SOFTWARE = 1, 2  # DXGI_ADAPTER_FLAG_REMOTE and DXGI_ADAPTER_FLAG_SOFTWARE
_BASIC_RENDER_DRIVER = 0x8C


@frozen(kw_only=True)
class Adapter:
    """A graphics adapter, as DXGI lists it."""

    position: int
    """Its number in ``EnumAdapters1``."""
    name: str
    vendor: int
    device: int
    luid: str
    """``high:low``: what identifies it until the next start of Windows or of its driver."""
    flags: int = 0
    dedicated_bytes: int = 0
    shared_bytes: int = 0

    @property
    def software(self) -> bool:
        """Whether ONNX Runtime GenAI passes it over, by its own rule."""
        return bool(self.flags & SOFTWARE) or (self.vendor, self.device) == (MICROSOFT, _BASIC_RENDER_DRIVER)

    @property
    def remote(self) -> bool:
        """Whether it stands for a screen elsewhere."""
        return bool(self.flags & REMOTE) or self.vendor == MICROSOFT


@frozen(kw_only=True)
class Core:
    """An adapter, as DXCore lists it: also those that compute without drawing."""

    luid: str
    name: str
    vendor: int
    hardware: bool
    integrated: bool | None = None
    """None if the driver does not say."""
    driver: str = ""
    graphics: bool = False
    npu: bool = False
    """Whether its driver calls it an NPU; drivers from before Windows 11 24H2 do not say."""


@frozen(kw_only=True)
class Trial:
    """What came of asking an adapter's driver for Direct3D 12."""

    position: int
    driver: str = ""
    code: int | None = None
    """The HRESULT of ``D3D12CreateDevice``; None if there was no answer."""
    failure: str = ""
    """Why there was no answer."""

    @property
    def succeeded(self) -> bool:
        return self.code is not None and self.code < 0x80000000


def _adapters(given: Any) -> Any:
    return values_of(Adapter, given)


def _core(given: Any) -> Any:
    return values_of(Core, given)


def _trials(given: Any) -> Any:
    return values_of(Trial, given)


@frozen(kw_only=True)
class Reading:
    """Everything that was read."""

    adapters: tuple[Adapter, ...] = field(default=(), converter=_adapters)
    core: tuple[Core, ...] = field(default=(), converter=_core)
    trials: tuple[Trial, ...] = field(default=(), converter=_trials)
    remote_session: bool = False
    build: int = 0
    """Of Windows."""
    failures: tuple[str, ...] = ()
    """What could not be read at all."""

    def trial(self, adapter: Adapter) -> Trial:
        """The trial of one adapter."""
        found = [trial for trial in self.trials if trial.position == adapter.position]
        return found[0] if found else Trial(position=adapter.position, failure="it was not asked")

    def details(self, adapter: Adapter) -> Core | None:
        """What DXCore says of an adapter, if anything."""
        return next((core for core in self.core if core.luid == adapter.luid), None)


def version(packed: int) -> str:
    """A driver's version, which Windows keeps as four numbers of 16 bits."""
    return ".".join(str(packed >> shift & 0xFFFF) for shift in (48, 32, 16, 0)) if packed else ""
