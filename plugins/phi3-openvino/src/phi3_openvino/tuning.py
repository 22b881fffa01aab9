"""Choose a setting for a processor by measuring it: in which groups OpenVINO rounds activations to 8 bits on CPUs.

Larger groups are faster on some processors and slower on others, and where they are larger than the groups of the
weights, OpenVINO computes in float32 without a word, which is the slowest of all. One layer of random weights is
measured when a model is first loaded on a processor, for less than a second, and the choice is remembered. See
docs/decisions/0032.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from phi3_core.backend import compiled_folder
from phi3_core.values import Artifact, Device

from .derived import publish
from .graph_weights import MarkedConverts

logger = logging.getLogger("phi3_core.openvino")

GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_DEFAULT = 32
"""OpenVINO's default."""
_CANDIDATES = (_DEFAULT, 64, 128)
_INPUTS, _OUTPUTS = 3072, 4096
_PROMPT = 128
_ROUNDS = 3
_ANSWER = 32
"""Tokens of an answer for each prompt of ``_PROMPT`` tokens, to weigh prefill and decoding."""
_FILE = "tuning.json"
_TAIL = 1 << 16


def group_of_weights(graph: Path) -> int | None:
    """Return the group size of an IR's symmetric int4 weights; None for other weights, and if the IR does not tell.

    -1 is one scale per channel. The IR tells it where NNCF does.
    """
    with graph.open("rb") as file:
        file.seek(max(0, graph.stat().st_size - _TAIL))
        tail = file.read().decode("utf-8", "replace")
    mode = re.search(r'<mode value="(\w+)"', tail)
    size = re.search(r'<group_size value="(-?\d+)"', tail)
    return int(size[1]) if size and mode and mode[1] == "int4_sym" else None


def tuned(
    artifact: Artifact, device: Device, graph: Path, runtime: str, properties: Mapping[str, object]
) -> str | None:
    """Return the group size of activations that is fastest for an artifact on this processor; None for the default.

    Args:
        artifact: the artifact.
        device: the CPU.
        graph: the IR's ``.xml`` file.
        runtime: the version of OpenVINO.
        properties: the other properties that the model is compiled with.
    """
    size = group_of_weights(graph) if graph.is_file() else None
    candidates = [each for each in _CANDIDATES if size == -1 or (size or 0) % each == 0]
    if size is None or len(candidates) < 2:
        return None
    folder = compiled_folder(artifact, device, runtime, variant="tuning")
    fastest = _read(folder, candidates)
    if fastest is None:
        times = measure(size, candidates, properties)
        fastest = min(times, key=lambda each: times[each])
        logger.info("activations are rounded in groups of %d: %s", fastest, _words(times))
        if folder is not None:
            _keep(folder, fastest, times)
    return None if fastest == _DEFAULT else str(fastest)


def measure(size: int, candidates: list[int], properties: Mapping[str, object]) -> dict[int, float]:
    """Return the seconds that one layer takes for a prompt and an answer, by the group size of activations.

    Args:
        size: the group size of the weights.
        candidates: the group sizes of activations.
        properties: the other properties to compile with.
    """
    model = _layer(size)
    core = ov.Core()
    requests = {
        each: core.compile_model(model, "CPU", {**properties, GROUP: str(each)}).create_infer_request()
        for each in candidates
    }
    prompt = np.random.default_rng(1).standard_normal((_PROMPT, _INPUTS), dtype=np.float32)
    prefill: dict[int, list[float]] = {each: [] for each in candidates}
    decode: dict[int, list[float]] = {each: [] for each in candidates}
    for _ in range(_ROUNDS):
        for each, request in requests.items():
            prefill[each].append(_seconds(request, prompt))
            decode[each] += [_seconds(request, prompt[:1]) for _ in range(4)]
    return {each: min(prefill[each]) + _ANSWER * min(decode[each]) for each in candidates}


def _layer(size: int) -> ov.Model:
    """Return a linear layer with random int4 weights in groups of ``size``."""
    random = np.random.default_rng(0)
    groups = 1 if size == -1 else _INPUTS // size
    shape = (_OUTPUTS, _INPUTS) if groups == 1 else (_OUTPUTS, groups, size)
    packed = random.integers(0, 256, _OUTPUTS * _INPUTS // 2, dtype=np.uint8)
    values = ov.Tensor(ov.Type.i4, ov.Shape(shape))
    values.data.reshape(-1)[:] = packed.reshape(-1)
    node = ops.convert(ov.op.Constant(values), "f16")
    node = ops.multiply(node, ops.constant(random.random((*shape[:-1], 1)).astype(np.float16)))
    if groups > 1:
        node = ops.reshape(node, ops.constant(np.array((_OUTPUTS, _INPUTS), np.int64)), special_zero=False)
    rows = ops.parameter([-1, _INPUTS], np.float32)
    return ov.Model([ops.matmul(rows, MarkedConverts().convert(node), False, True)], [rows], "layer")


def _seconds(request: ov.InferRequest, rows: np.ndarray) -> float:
    started = time.perf_counter()
    request.infer([rows])
    return time.perf_counter() - started


def _words(times: Mapping[int, float]) -> str:
    return ", ".join(f"{seconds * 1e3:.1f} ms with {each}" for each, seconds in times.items())


def _read(folder: Path | None, candidates: list[int]) -> int | None:
    if folder is None:
        return None
    file = folder / _FILE
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        fastest = json.loads(file.read_text(encoding="utf-8"))["fastest"]
        if fastest in candidates:
            return int(fastest)
    with contextlib.suppress(OSError):
        file.unlink()  # it is damaged, or of another version
    return None


def _keep(folder: Path, fastest: int, times: Mapping[int, float]) -> None:
    text = json.dumps({"fastest": fastest, "seconds": {str(each): round(taken, 6) for each, taken in times.items()}})
    with (
        contextlib.suppress(OSError),  # it is measured again next time
        tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as staging,
    ):
        Path(staging, _FILE).write_text(text, encoding="utf-8")
        publish(Path(staging), folder, (_FILE,))
