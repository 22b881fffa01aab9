"""Choose a setting for a processor by measuring it: in which groups OpenVINO rounds activations to 8 bits on CPUs.

Larger groups are faster on some processors and slower on others, and where they are larger than the groups of the
weights, OpenVINO computes in float32 without a word, which is the slowest of all. Layers of random weights in the
model's form are measured when it is first loaded on a processor, for less than a second, and the choice is remembered.
They are read from memory, as those of a model are: in the caches of the processor another size is the fastest. See
docs/decisions/0032.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from phi3_core.backend import compiled_folder
from phi3_core.values import Artifact, Device

from .derived import publish
from .graph_weights import TYPES, MarkedConverts

logger = logging.getLogger("phi3_core.openvino")

GROUP = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_DEFAULT = 32
"""OpenVINO's default."""
_CANDIDATES = (_DEFAULT, 64, 128)
_INPUTS, _OUTPUTS = 3072, 4096
_BYTES = 36 << 20
"""Weights of all candidates together. They are read in turns and exceed the caches of most processors."""
_ROWS = 32
"""Rows that stand for a prompt."""
_ROUNDS = 8
_PROMPT, _ANSWER = 128, 16
"""Tokens of a prompt and its answer, to weigh prefill and decoding. An answer is read as it comes."""
_FILE = "tuning.json"
_TAIL = 1 << 16


class Form(NamedTuple):
    """How int4 weights are rounded."""

    symmetric: bool
    size: int
    """The group size; -1 is one scale per channel."""

    def holds(self, size: int) -> bool:
        """Return whether the groups are made of groups of this size."""
        return self.size == -1 or self.size % size == 0


def form_of_weights(graph: Path) -> Form | None:
    """Return the form of an IR's int4 weights; None for other weights, and if the IR does not tell it where NNCF does.

    Weights of 8 bits are so exact that larger groups of activations would show in the answers.
    """
    with graph.open("rb") as file:
        file.seek(max(0, graph.stat().st_size - _TAIL))
        tail = file.read().decode("utf-8", "replace")
    mode = re.search(r'<mode value="int4_(a?sym)"', tail)
    size = re.search(r'<group_size value="(-?\d+)"', tail)
    return Form(mode[1] == "sym", int(size[1])) if mode and size else None


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
    form = form_of_weights(graph) if graph.is_file() else None
    if form is None:
        return None
    candidates = [each for each in _CANDIDATES if form.holds(each)]
    if len(candidates) < 2:
        return None
    folder = compiled_folder(artifact, device, runtime, variant="tuning")
    fastest = _read(folder, candidates)
    if fastest is None:
        times = measure(form, candidates, properties)
        fastest = min(times, key=lambda each: times[each])
        logger.info("activations are rounded in groups of %d: %s", fastest, _words(times))
        if folder is not None:
            _keep(folder, fastest, times)
    return None if fastest == _DEFAULT else str(fastest)


def measure(form: Form, candidates: list[int], properties: Mapping[str, object]) -> dict[int, float]:
    """Return the seconds that the layers take for a prompt and an answer, by the group size of activations.

    Args:
        form: the form of the weights.
        candidates: the group sizes of activations.
        properties: the other properties to compile with.
    """
    model = _layers(form, -(-_BYTES // (len(candidates) * _INPUTS * _OUTPUTS // 2)))
    core = ov.Core()
    requests = {
        each: core.compile_model(model, "CPU", {**properties, GROUP: str(each)}).create_infer_request()
        for each in candidates
    }
    prompt = np.random.default_rng(1).standard_normal((_ROWS, _INPUTS), dtype=np.float32)
    prefill = _fastest(requests, prompt, 2)
    decode = _fastest(requests, prompt[:1], _ROUNDS)
    return {each: prefill[each] * _PROMPT / _ROWS + decode[each] * _ANSWER for each in candidates}


def _fastest(requests: Mapping[int, ov.InferRequest], rows: np.ndarray, rounds: int) -> dict[int, float]:
    """Return the shortest time of each request, all of which are run in turns; the first round is not counted."""
    for request in requests.values():
        request.infer([rows])
    times: dict[int, list[float]] = {each: [] for each in requests}
    for _ in range(rounds):
        for each, request in requests.items():
            times[each].append(_seconds(request, rows))
    return {each: min(taken) for each, taken in times.items()}


def _layers(form: Form, count: int) -> ov.Model:
    """Return the sum of ``count`` linear layers of the same input, with random weights."""
    random = np.random.default_rng(0)
    converts = MarkedConverts()
    rows = ops.parameter([-1, _INPUTS], np.float32)
    layers = [ops.matmul(rows, converts.convert(_weights(form, random)), False, True) for _ in range(count)]
    return ov.Model([functools.reduce(ops.add, layers)], [rows], "layers")


def _weights(form: Form, random: np.random.Generator) -> ov.Node:
    groups = 1 if form.size == -1 else _INPUTS // form.size
    shape = (_OUTPUTS, _INPUTS) if groups == 1 else (_OUTPUTS, groups, form.size)
    shared = (*shape[:-1], 1)
    kind = TYPES[4, form.symmetric]
    node = ops.convert(_constant(kind, shape, random), "f16")
    if not form.symmetric:
        node = ops.subtract(node, ops.convert(_constant(kind, shared, random), "f16"))
    node = ops.multiply(node, ops.constant(random.random(shared).astype(np.float16)))
    return node if groups == 1 else ops.reshape(node, ops.constant([_OUTPUTS, _INPUTS]), special_zero=False)


def _constant(kind: ov.Type, shape: tuple[int, ...], random: np.random.Generator) -> ov.Node:
    values = ov.Tensor(kind, ov.Shape(shape))
    content = values.data.reshape(-1).view(np.uint8)
    content[:] = random.integers(0, 256, len(content), dtype=np.uint8)
    return ov.op.Constant(values)


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
