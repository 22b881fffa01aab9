"""``--exporter reference``: run optimum-intel in a separate environment.

optimum-intel traces transformers' model with PyTorch, so it supports all variants of Phi-3 that transformers supports,
and compresses weights with NNCF. Some of its failures are silent, so its output is checked.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from phi3_core.backend import (
    Toolchain,
    check_resources_for_reference,
    copy_sidecars,
    prepare_toolchain,
    read_config,
    replace_path,
)
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Device, Progress, Recipe, Source

from . import npu, weights

logger = logging.getLogger("phi3_core.openvino")

OPTIMUM = Toolchain(
    name="optimum-intel",
    requirements=(
        "optimum-intel>=2.2,<2.3",
        "transformers>=5.5,<5.6",
        "nncf>=3.3,<4",
        "openvino>=2026.4,<2027",
        "openvino-tokenizers>=2026.4,<2027",
        "torch>=2.5,<3",
    ),
    # A torchvision that does not match torch breaks the import of transformers, and openvino-telemetry sends
    # statistics. Exporting needs neither.
    left_out=("torchvision", "openvino-telemetry"),
    size_bytes=1_700_000_000,  # measured on Linux with PyTorch for CPUs; 6.2 GB with the default one for CUDA
)
_RECORDED = ("optimum-intel", "transformers", "nncf", "openvino", "torch")
# A line of the table that transformers only logs when a checkpoint and its model differ.
_MISFIT = re.compile(r"^(?P<name>[^|\n]+?)[ \t]*\|\s*(?P<status>UNEXPECTED|MISSING|MISMATCH)\b", re.MULTILINE)
_BINARY = Path(weights.IR).with_suffix(".bin").name
_TOKENIZER = "openvino_tokenizer.xml"


def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> dict[str, str]:
    """Run optimum-intel to fill the folder ``output``.

    Args:
        source: the original weights.
        device: the device the artifact is for.
        recipe: how to quantize.
        output: an empty folder.
        progress: called as the work proceeds.

    Returns:
        The versions of optimum-intel and its main dependencies, by name.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: optimum-intel cannot be installed, failed, or wrote something else than the recipe asks for.
        UsageError: optimum-intel does not support the recipe.
    """
    if recipe.extra.get("calibration", "none") != "none":
        raise UsageError("the reference exporter takes no calibration text", hint="leave --calibration out")
    if recipe.precision == "fp16":
        # An error of 0.04 % in the frequencies is an error of up to one radian in the rotation at position 4,096.
        # At int8 and int4 the frequencies stay in float32. See docs/checked-shapes.md.
        raise UsageError(
            "optimum-intel rounds the rotary frequencies of fp16 models, whose answers go wrong with their length",
            hint="use --precision int8, or leave --exporter reference out",
        )
    _check_groups(source, recipe)
    # Measured: 11.3 GB of memory for Phi-3-mini's 7.6 GB.
    check_resources_for_reference(source, output, disk=2, memory=4 / 3)
    tools = prepare_toolchain(OPTIMUM, progress)
    with tempfile.TemporaryDirectory(dir=output, prefix="scratch-") as scratch:
        result = Path(scratch) / "result"
        told = tools.run(list(_command(source, device, recipe, result)), folder=Path(scratch), progress=progress)
        _check(result, recipe, told)
        for file in result.glob("openvino_*"):
            replace_path(file, output / file.name)
        if not (source.path / "tokenizer.json").is_file():
            # The source's own files first: those that transformers saves again may differ.
            copy_sidecars(source.path, output)
            copy_sidecars(result, output)
    return {name: tools.versions[name] for name in _RECORDED}


def _command(source: Source, device: Device, recipe: Recipe, result: Path) -> Iterator[str | Path]:
    """Yield the arguments of optimum-cli; defaults are those of the built-in exporter as far as possible."""
    yield from ("-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", source.path)
    yield from ("--library", "transformers", "--task", "text-generation-with-past")
    yield from ("--weight-format", recipe.precision)
    if recipe.precision != "fp16" and recipe.symmetric is not False:
        yield "--sym"
    if recipe.precision == "int4":
        yield from ("--ratio", str(recipe.ratio), "--group-size", str(recipe.group_size or 128))
        # The NPU supports groups of 128 or one scale per channel only.
        free = recipe.group_size is None and not npu.runs_on(device)
        yield from ("--group-size-fallback", "adjust" if free else "error")
    yield result


def _check(result: Path, recipe: Recipe, told: str) -> None:
    """Check the output for failures that optimum-intel does not report.

    Raises:
        ModelError: the output is not what the recipe asks for.
    """
    misfits = [(found["status"].lower(), found["name"]) for found in _MISFIT.finditer(told)]
    if misfits:
        status, name = misfits[0]
        more = f", and {len(misfits) - 1} like it" if misfits[1:] else ""
        raise ModelError(f"the checkpoint does not fit transformers' Phi-3: {status} tensor {name}{more}")
    found = weights.recognize(result) if (result / _BINARY).is_file() else None
    if found is None:
        raise ModelError(f"optimum-intel ended without an error and without {weights.IR}, or without its {_BINARY}")
    if found != recipe.precision:
        raise ModelError(f"optimum-intel was asked for {recipe.precision} and wrote {found}")
    if 'type="ReadValue"' not in (result / weights.IR).read_text(encoding="utf-8"):
        raise ModelError("optimum-intel wrote a graph without a KV cache of its own, which OpenVINO GenAI cannot use")
    if not (result / _TOKENIZER).is_file():
        logger.warning("optimum-intel did not convert the tokenizer: phi3 has no need of it, other programs do")


def _check_groups(source: Source, recipe: Recipe) -> None:
    """Check the group size; NNCF would fail too, but minutes later."""
    config = read_config(source.path)
    for key in ("hidden_size", "intermediate_size"):
        width = config.get(key)
        if recipe.group_size and recipe.group_size > 0 and isinstance(width, int) and width % recipe.group_size:
            raise UsageError(
                f"groups of {recipe.group_size} do not divide the {width} inputs that {key} makes",
                hint="leave --group-size out, or use a divisor",
            )
