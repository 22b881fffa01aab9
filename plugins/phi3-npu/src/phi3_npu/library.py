"""The way to Intel's NPU Acceleration Library 1.4.0: what it needs, and what has to be kept away from it.

The library was archived in April 2025 and is used as it was left. It writes into the current folder, ends the process
when that cannot be written, patches PyTorch, and puts its own OpenVINO 2024.4 before everybody's on the search path.
That is why it is imported here only, in a worker process of its own, with a private current folder.
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

# The library quantizes with neural-compressor, which removed what it imports in version 3.8. Rounding is done by
# phi3-core here, so the names are needed for the import alone, whatever version is installed.
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
    """What is used of the library."""

    linear: Any
    """``nn.Linear(weight)``: half precision, ``[outputs, inputs]``."""
    quantized_linear: Any
    """``nn.QuantizedLinear(weight, scale)``: int8 or packed uint8, with ``[outputs, 1]`` scales in half precision."""
    backend: Any

    def release(self) -> None:
        """Free every kernel, as long as the weights are there.

        Each kernel has a thread that copies the next layer's weights, and waits for it as it goes. Kernels refer to
        themselves, so that they go when garbage is collected, which must not be later than the weights do.
        """
        self.backend.clear_cache()
        gc.collect()


def enter(folder: Path, device: str) -> Library:
    """Import the library with ``folder`` as the process's current folder; ``device`` is ``NPU`` or ``CPU``.

    Raises:
        BackendError: another OpenVINO is in the process, or the library sees no NPU.
    """
    if "openvino" in sys.modules and "intel_npu_acceleration_library" not in sys.modules:
        raise BackendError("OpenVINO is loaded in this process already, and the library brings one of its own")
    os.chdir(folder)
    with _without_compressor(), _search_path_kept(), _single_precision(device), warnings.catch_warnings():
        # Among others: that there is no NPU and that it will go on without one. Neither happens in silence here.
        warnings.simplefilter("ignore")
        from intel_npu_acceleration_library import backend, nn
        from intel_npu_acceleration_library.backend import runtime

        if device == "NPU" and not backend.npu_available():
            raise BackendError("the library finds no NPU that it can use", hint="phi3 doctor says what is missing")
    _choose(runtime, device)
    return Library(linear=nn.Linear, quantized_linear=nn.QuantizedLinear, backend=backend)


def _choose(runtime: Any, device: str) -> None:
    """Have kernels made for this device. The library takes an NPU wherever there is one."""
    for name in ("Linear", "QLinear"):
        original = getattr(runtime, name)
        original = getattr(original, "phi3_original", original)

        def create(*arguments: Any, _original: Any = original, **named: Any) -> Any:
            return _original(*arguments, device=device, **named)

        create.__name__ = name  # part of the key that the library keeps kernels by
        create.phi3_original = original  # type: ignore[attr-defined]
        setattr(runtime, name, create)


@contextlib.contextmanager
def _without_compressor() -> Iterator[None]:
    """Stand-ins for the names of neural-compressor that the library imports and that are not used."""
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
    """Keep OpenVINO's CPU fallback from computing in bfloat16, as it does wherever the processor can.

    The library has no way to ask for a precision. OpenVINO asks its own copy of oneDNN for the processor's abilities
    as the library is imported, and oneDNN reads this variable that once; PyTorch's copy must not be held back.
    """
    before = os.environ.get(_MAX_CPU_ISA)
    if device == "CPU" and before is None:
        os.environ[_MAX_CPU_ISA] = "AVX512_CORE_VNNI"  # the last that knows no bfloat16; no harm where there is less
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
