"""Records of adapters."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from phi3_core.backend import values_of

AMD, INTEL, MICROSOFT, NVIDIA = 0x1002, 0x8086, 0x1414, 0x10DE
QUALCOMM = 0x4D4F4351
"""``QCOM``, the vendor id of an ACPI device: Adreno GPUs are not PCI devices."""
VENDORS = {AMD: "AMD", 0x1022: "AMD", INTEL: "Intel", NVIDIA: "NVIDIA", QUALCOMM: "Qualcomm", 0x17CB: "Qualcomm"}
REMOTE, SOFTWARE = 1, 2  # DXGI_ADAPTER_FLAG_REMOTE and DXGI_ADAPTER_FLAG_SOFTWARE
_BASIC_RENDER_DRIVER = 0x8C


@frozen(kw_only=True)
class Adapter:
    """A graphics adapter, as listed by DXGI."""

    position: int
    """Its index in ``EnumAdapters1``."""
    name: str
    vendor: int
    """PCI vendor id, or that of an ACPI device."""
    device: int
    """Device id of the vendor."""
    luid: str
    """``high:low``: identifies the adapter until Windows or the driver restarts."""
    flags: int = 0
    """``DXGI_ADAPTER_FLAG``."""
    dedicated_bytes: int = 0
    """Dedicated video memory."""
    shared_bytes: int = 0
    """System memory that the adapter may use."""

    @property
    def software(self) -> bool:
        """Whether ONNX Runtime GenAI skips the adapter as a software adapter."""
        return bool(self.flags & SOFTWARE) or (self.vendor, self.device) == (MICROSOFT, _BASIC_RENDER_DRIVER)

    @property
    def remote(self) -> bool:
        """Whether the adapter belongs to a remote session."""
        return bool(self.flags & REMOTE) or self.vendor == MICROSOFT


@frozen(kw_only=True)
class Core:
    """An adapter, as listed by DXCore, including compute-only ones."""

    luid: str
    name: str
    vendor: int
    hardware: bool
    integrated: bool | None = None
    """Whether the GPU is integrated; None if the driver does not report it."""
    driver: str = ""
    """Version of the driver; empty if not reported."""
    graphics: bool = False
    """Whether the adapter supports graphics."""
    npu: bool = False
    """Whether the driver reports an NPU; drivers older than Windows 11 24H2 do not."""


@frozen(kw_only=True)
class Trial:
    """The result of testing an adapter for Direct3D 12."""

    position: int
    """The adapter's index in ``EnumAdapters1``."""
    driver: str = ""
    """Version of the driver; empty if not reported."""
    code: int | None = None
    """The HRESULT of ``D3D12CreateDevice``; None if the call did not return."""
    failure: str = ""
    """Why the call did not return."""

    @property
    def succeeded(self) -> bool:
        """Whether the adapter supports Direct3D 12."""
        return self.code is not None and self.code < 0x80000000


def _adapters(given: Any) -> Any:
    return values_of(Adapter, given)


def _core(given: Any) -> Any:
    return values_of(Core, given)


def _trials(given: Any) -> Any:
    return values_of(Trial, given)


@frozen(kw_only=True)
class Reading:
    """All adapters and the Windows system, as reported by Windows."""

    adapters: tuple[Adapter, ...] = field(default=(), converter=_adapters)
    core: tuple[Core, ...] = field(default=(), converter=_core)
    trials: tuple[Trial, ...] = field(default=(), converter=_trials)
    remote_session: bool = False
    """Whether the process runs in a Remote Desktop session."""
    build: int = 0
    """The build number of Windows."""
    failures: tuple[str, ...] = ()
    """The steps that failed, with reasons."""

    def trial(self, adapter: Adapter) -> Trial:
        """Return the trial of an adapter."""
        found = [trial for trial in self.trials if trial.position == adapter.position]
        return found[0] if found else Trial(position=adapter.position, failure="it was not asked")

    def details(self, adapter: Adapter) -> Core | None:
        """Return DXCore's record of an adapter, or None."""
        return next((core for core in self.core if core.luid == adapter.luid), None)


def version(packed: int) -> str:
    """Return a driver version as text from four packed 16-bit numbers; empty for 0."""
    return ".".join(str(packed >> shift & 0xFFFF) for shift in (48, 32, 16, 0)) if packed else ""
