"""Import of Intel's NPU Acceleration Library 1.4.0, with workarounds.

The library was archived in April 2025. It writes to the current folder and ends the process if it cannot, patches
PyTorch, and puts its own OpenVINO 2024.4 first on the search path. Therefore only this module imports it, in a worker
process with a private current folder.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import frozen
from phi3_core.errors import BackendError

# The library quantizes with neural-compressor, whose version 3.8 removed the names that the library imports.
# phi3-core does the rounding here, so stand-ins are enough, whatever version is installed.
_COMPRESSOR = {
    "neural_compressor": (),
    "neural_compressor.adaptor": (),
    "neural_compressor.adaptor.torch_utils": (),
    "neural_compressor.adaptor.torch_utils.model_wrapper": ("WeightOnlyLinear",),
    "neural_compressor.config": ("PostTrainingQuantConfig", "TuningCriterion"),
    "neural_compressor.quantization": ("fit",),
}

_MAX_CPU_ISA = "ONEDNN_MAX_CPU_ISA"


@frozen(kw_only=True, eq=False)
class Library:
    """The parts of the library that this backend uses."""

    linear: Any
    """``nn.Linear(weight)``: float16, ``[outputs, inputs]``."""
    quantized_linear: Any
    """``nn.QuantizedLinear(weight, scale)``: int8 or packed uint8, with float16 scales, ``[outputs, 1]``."""
    backend: Any
    """The module ``backend``."""

    def release(self) -> None:
        """Free all kernels. Call this before the weights are freed.

        Each kernel has a thread that copies the next layer's weights, and joins it when it is freed. Kernels are
        part of reference cycles, so only garbage collection frees them, which has to happen before the weights go.
        """
        self.backend.clear_cache()
        gc.collect()


def enter(folder: Path, device: str) -> Library:
    """Import the library and change to the folder that it writes to.

    Args:
        folder: the new current folder of the process.
        device: ``NPU`` or ``CPU``.

    Raises:
        BackendError: another OpenVINO is loaded in the process, or the library finds no NPU.
    """
    if "openvino" in sys.modules and "intel_npu_acceleration_library" not in sys.modules:
        raise BackendError("OpenVINO is loaded in this process already, and the library brings one of its own")
    os.chdir(folder)
    with _without_compressor(), _search_path_kept(), _single_precision(device), warnings.catch_warnings():
        # The library warns if it falls back to the CPU; the check below raises instead.
        warnings.simplefilter("ignore")
        from intel_npu_acceleration_library import backend, nn
        from intel_npu_acceleration_library.backend import runtime

        if device == "NPU" and not backend.npu_available():
            raise BackendError("the library finds no NPU that it can use", hint="phi3 doctor says what is missing")
    _choose(runtime, device)
    return Library(linear=nn.Linear, quantized_linear=nn.QuantizedLinear, backend=backend)


def _choose(runtime: Any, device: str) -> None:
    """Make the library create kernels for ``device``; by default it uses an NPU if there is one."""
    for name in ("Linear", "QLinear"):
        original = getattr(runtime, name)
        original = getattr(original, "phi3_original", original)

        def create(*arguments: Any, _original: Any = original, **named: Any) -> Any:
            return _original(*arguments, device=device, **named)

        create.__name__ = name  # part of the key of the library's kernel cache
        create.phi3_original = original  # type: ignore[attr-defined]
        setattr(runtime, name, create)


@contextlib.contextmanager
def _without_compressor() -> Iterator[None]:
    """Provide stand-ins for the names of neural-compressor that the library imports; they are never used."""
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "neural_compressor"}
    for name in kept:
        del sys.modules[name]
    for name, contents in _COMPRESSOR.items():
        module = ModuleType(name)
        module.__path__ = []
        for each in contents:
            setattr(module, each, type(each, (), {}))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in _COMPRESSOR:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


@contextlib.contextmanager
def _single_precision(device: str) -> Iterator[None]:
    """Prevent OpenVINO's CPU fallback from computing in bfloat16 on processors that support it.

    The library has no setting for the precision. OpenVINO's copy of oneDNN reads this variable once, when the library
    is imported; it is then restored, so that PyTorch's copy of oneDNN is not restricted.
    """
    before = os.environ.get(_MAX_CPU_ISA)
    if device == "CPU" and before is None:
        os.environ[_MAX_CPU_ISA] = "AVX512_CORE_VNNI"  # the newest without bfloat16; no effect on older processors
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_MAX_CPU_ISA, None)


@contextlib.contextmanager
def _search_path_kept() -> Iterator[None]:
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
