"""What can be said of a folder, a device and the options before the runtime sees them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from attrs import field, frozen
from phi3_core.backend import read_limits
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Artifact, Device

from . import configuration, detection
from .onnx import writer

logger = logging.getLogger("phi3_core.dml")

_OPTIONS = ("intra_op_num_threads", "inter_op_num_threads")


@frozen(kw_only=True)
class Provider:
    """What an execution provider can do."""

    name: str | None
    """As onnxruntime-genai calls it; None is the CPU's, which needs no name."""
    options: Mapping[str, str]
    rewinds: bool
    """Whether a filled cache can be shortened and added to."""
    float16: bool
    """Whether its graphs compute in half precision."""


@frozen(kw_only=True)
class Opening:
    """How a folder is loaded."""

    provider: Provider
    context: int
    """Tokens of prompt and answer together."""
    original: int | None
    """Of longrope's two sets of factors the first serves up to so many tokens; None if there is one set."""
    vocabulary: int
    session: Mapping[str, int] = field(factory=dict)
    """Options of ONNX Runtime's session."""


def check(artifact: Artifact, device: Device, options: Mapping[str, str]) -> Opening:
    """How ``artifact`` is loaded on ``device``; ``options`` are ONNX Runtime's session options.

    Raises:
        ModelError: the folder is damaged, or not for this device, or wants more than it may.
        UsageError: an option that is not known.
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
    window = limits.sliding_window
    if device.id.isdigit() and window is not None and window < context:
        logger.warning("the context is limited to %d tokens: DirectML's attention has no sliding window", window)
        context = window
    return Opening(
        provider=provider,
        context=context,
        original=limits.longrope_limit,
        vocabulary=content["model"]["vocab_size"],
        session=_session(options),
    )


def provider_of(device: Device) -> Provider:
    """By the device's id: ``CPU``, ``CUDA``, or the number of a DirectX adapter."""
    if device.id.isascii() and device.id.isdigit():
        return Provider(name="dml", options={"device_index": device.id}, rewinds=False, float16=True)
    if device.id == "CPU":
        return Provider(name=None, options={}, rewinds=True, float16=False)
    if device.id == "CUDA":
        return Provider(name="cuda", options={}, rewinds=True, float16=True)
    raise UsageError(f"there is no device {device}", hint="phi3 devices")


def _session(options: Mapping[str, str]) -> dict[str, int]:
    for key, value in options.items():
        if key not in _OPTIONS:
            raise UsageError(f"dml has no option {key}", hint=f"there is {' and '.join(_OPTIONS)}")
        if not (value.isascii() and value.isdigit() and int(value) < 1024):
            raise UsageError(f"the option {key} is a number of threads, not {value!r}")
    return {key: int(value) for key, value in options.items()}
