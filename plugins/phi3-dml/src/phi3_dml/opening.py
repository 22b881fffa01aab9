"""Checks of an artifact, a device and options before the runtime is imported."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from attrs import evolve, field, frozen
from phi3_core.backend import check_options, core_threads, read_limits
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Artifact, Device

from . import configuration, detection, flavours
from .catalogue import DOWNLOAD_OPTION, PROVIDER_OPTION, ProviderRequest
from .onnx import writer
from .onnx.reader import Content

logger = logging.getLogger("phi3_core.dml")

_THREADS = ("intra_op_num_threads", "inter_op_num_threads")
_OPTIONS = (*_THREADS, PROVIDER_OPTION, DOWNLOAD_OPTION)


@frozen(kw_only=True)
class Provider:
    """An execution provider and its features."""

    name: str | None
    """Its name in onnxruntime-genai; None for the default, the CPU."""
    options: Mapping[str, str]
    """Its provider options."""
    rewinds: bool
    """Whether a filled KV cache can be truncated and extended."""
    float16: bool
    """Whether its graphs compute in float16."""


@frozen(kw_only=True)
class Opening:
    """How to load an artifact."""

    provider: Provider
    context: int
    """Tokens of prompt and answer together."""
    original: int | None
    """The longest sequence that uses LongRoPE's short factors; None if there is only one set of factors."""
    vocabulary: int
    sliding_window: bool = False
    """Whether the configuration has a window, by which the runtime would cut the KV cache."""
    session: Mapping[str, int] = field(factory=dict)
    """ONNX Runtime session options."""
    requested: ProviderRequest | None = None
    """The execution provider of Windows ML's catalogue to use instead of :attr:`provider`."""


def check(artifact: Artifact, device: Device, options: Mapping[str, str]) -> Opening:
    """Return how to load an artifact.

    Args:
        artifact: a folder with ``genai_config.json``.
        device: the device to load it on.
        options: options of the engine.

    Raises:
        BackendError: the device's index belongs to another adapter.
        ModelError: the folder is damaged, is not for this device, or contains settings that are not allowed.
        UsageError: the device does not exist, or an option is unknown, invalid, or not for the installed flavour.
    """
    content = configuration.read(artifact.path)
    graph, found = configuration.check_files(artifact.path, content)
    provider = provider_of(device)
    float16 = writer.FLOAT16 in {kind for name, kind in found.inputs.items() if name.startswith("past")}
    if provider.float16 != float16:
        made = "GPUs, in half precision" if float16 else "CPUs, in single precision"
        raise ModelError(f"{graph} was made for {made}; {device} needs another form", hint="phi3 models pull")
    detection.confirm(device)
    limits = read_limits(artifact)
    context: int = content["model"]["context_length"]
    sliding = configuration.sliding_window(content)
    window = sliding["window_size"] if sliding else limits.sliding_window
    why = "the graph has no sliding window"
    if device.id.isdigit():
        window, why = limits.sliding_window or window, "DirectML's attention has no sliding window"
    elif window is not None and _applies(found, window, len(sliding.get("layers", ())) if sliding else 0):
        window = None
    if window is not None and window < context:
        logger.warning("the context is limited to %d tokens: %s", window, why)
        context = window
    return Opening(
        provider=provider,
        context=context,
        sliding_window=sliding is not None,
        original=limits.longrope_limit,
        vocabulary=content["model"]["vocab_size"],
        session=_session(options),
        requested=requested_provider(options, flavours.installed().flavour),
    )


def _applies(found: Content, window: int, layers: int) -> bool:
    """Return whether the graph's own attention has a window, in ``layers`` layers, or in all of them if that is 0."""
    return found.windows.get(window, 0) == (layers or max(1, sum(found.windows.values())))


def provider_of(device: Device) -> Provider:
    """Return the execution provider for a device id: ``CPU``, ``CUDA``, or the index of a DirectX adapter.

    Raises:
        UsageError: there is no such device.
    """
    if device.id.isascii() and device.id.isdigit():
        return Provider(name="dml", options={"device_index": device.id}, rewinds=False, float16=True)
    if device.id == "CPU":
        return Provider(name=None, options={}, rewinds=True, float16=False)
    if device.id == "CUDA":
        return Provider(name="cuda", options={}, rewinds=True, float16=True)
    raise UsageError(f"there is no device {device}", hint="phi3 devices")


def with_provider(opened: Opening, name: str) -> Opening:
    """Return ``opened`` with a registered execution provider of Windows ML's catalogue in place of the device's own."""
    # Whether such a provider can truncate a filled KV cache is unknown.
    return evolve(opened, provider=evolve(opened.provider, name=name, options={}, rewinds=False))


def _session(options: Mapping[str, str]) -> dict[str, int]:
    check_options("dml", options, known=_OPTIONS)
    for key, value in options.items():
        if key in _THREADS and not (value.isascii() and value.isdigit() and int(value) < 1024):
            raise UsageError(f"the option {key} is a number of threads, not {value!r}")
    # ONNX Runtime takes the two cores of some virtual machines for one, counts what a container does not allow, and
    # binds its threads to cores unless their number is given.
    return {_THREADS[0]: core_threads()} | {key: int(value) for key, value in options.items() if key in _THREADS}


def requested_provider(options: Mapping[str, str], flavour: str | None) -> ProviderRequest | None:
    """Return the execution provider of Windows ML's catalogue that the options ask for, if they do.

    Args:
        options: options of the engine.
        flavour: the installed flavour of ONNX Runtime GenAI.

    Raises:
        UsageError: an option is invalid, or the flavour is not Windows ML's.
    """
    name, download = options.get(PROVIDER_OPTION), options.get(DOWNLOAD_OPTION, "no")
    if download not in {"yes", "no"}:
        raise UsageError(f"the option {DOWNLOAD_OPTION} is yes or no, not {download!r}")
    if name is None:
        if DOWNLOAD_OPTION in options:
            raise UsageError(f"the option {DOWNLOAD_OPTION} needs the option {PROVIDER_OPTION}")
        return None
    if not name:
        raise UsageError(f"the option {PROVIDER_OPTION} is the name of an execution provider")
    if flavour != "winml":
        raise UsageError(
            f"the option {PROVIDER_OPTION} needs Windows ML's flavour of ONNX Runtime GenAI",
            hint="the README of phi3-dml says how to install it",
        )
    return ProviderRequest(name=name, download=download == "yes")
