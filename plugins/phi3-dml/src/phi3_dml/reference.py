"""``--exporter reference``: run the model builder of onnxruntime-genai in a separate environment.

The builder loads the complete model with PyTorch, writes the graph in float16 or float32 and then rounds it. This takes
22.8 GB of memory for Phi-3-mini. By default it runs code from the model's repository, which is disabled here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from phi3_core.backend import Toolchain, check_resources_for_reference, prepare_toolchain, replace_path
from phi3_core.errors import ModelError, UsageError
from phi3_core.values import Device, Progress, Recipe, Source

from . import configuration, weights

BUILDER = Toolchain(
    name="onnxruntime-genai-builder",
    # The release of the DirectML flavour, which may not support the output of a newer builder.
    requirements=(
        "onnxruntime-genai==0.13.1",
        "onnxruntime==1.24.4",
        "onnx-ir>=0.1,<2",
        "onnx>=1.18,<2",
        "transformers>=4.51,<5",
        "torch>=2.5,<3",
    ),
    # Not needed, and a version that does not match torch breaks the import of transformers.
    left_out=("torchvision",),
    size_bytes=1_400_000_000,
)
_RECORDED = ("onnxruntime-genai", "onnxruntime", "onnx-ir", "transformers", "torch")


def quantize(source: Source, device: Device, recipe: Recipe, output: Path, progress: Progress) -> dict[str, str]:
    """Run the builder to fill the folder ``output``.

    Args:
        source: the original weights.
        device: the device the artifact is for.
        recipe: how to quantize.
        output: an empty folder.
        progress: called as the work proceeds.

    Returns:
        The versions of the builder and its main dependencies, by name.

    Raises:
        DiskFullError: too little of the disk is free.
        ModelError: the builder cannot be installed, failed, or wrote something else than the recipe asks for.
        UsageError: the builder does not support the recipe.
    """
    _check_recipe(recipe)
    # Measured: 22.8 GB of memory for Phi-3-mini's 7.6 GB.
    check_resources_for_reference(source, output, disk=3, memory=3)
    tools = prepare_toolchain(BUILDER, progress)
    with tempfile.TemporaryDirectory(dir=output, prefix="scratch-") as scratch:
        result = Path(scratch) / "result"
        tools.run(list(_command(source, device, recipe, result)), folder=Path(scratch), progress=progress)
        found = weights.recognize(result)
        if found != recipe.precision:
            raise ModelError(f"the builder was asked for {recipe.precision} and wrote {found or 'nothing'}")
        for name in (configuration.NAME, configuration.MODEL, configuration.DATA):
            replace_path(result / name, output / name)
    return {name: tools.versions[name] for name in _RECORDED}


def _check_recipe(recipe: Recipe) -> None:
    if recipe.extra.get("calibration", "none") != "none":
        raise UsageError("the reference exporter takes no calibration text", hint="leave --calibration out")
    if recipe.precision == "int8":
        raise UsageError("the reference exporter knows int4 and fp16", hint="leave --exporter reference out")
    if recipe.ratio != 1:
        raise UsageError("the reference exporter takes one precision throughout", hint="leave --ratio out")
    if recipe.precision == "fp16" and recipe.group_size not in {None, -1}:
        raise UsageError(f"fp16 has no groups of {recipe.group_size}", hint="leave the group size out")
    if recipe.precision == "int4" and recipe.group_size not in {None, 16, 32, 64, 128, 256}:
        raise UsageError(f"the reference exporter takes no groups of {recipe.group_size}", hint="--group-size 32")


def _command(source: Source, device: Device, recipe: Recipe, result: Path) -> Iterator[str | Path]:
    """Yield the builder's arguments. It does not support float16 on CPUs, so they get float32."""
    cpu = device.kind == "cpu"
    precision = "fp32" if cpu and recipe.precision == "fp16" else recipe.precision
    yield from ("-m", "onnxruntime_genai.models.builder", "-i", source.path, "-o", result, "-p", precision)
    yield from ("-e", "cpu" if cpu else "dml", "-c", result.with_name("cache"), "--extra_options", "hf_remote=false")
    if recipe.precision == "int4":
        yield from (f"int4_block_size={recipe.group_size or 32}", f"int4_accuracy_level={4 if cpu else 0}")
        yield f"int4_is_symmetric={'false' if recipe.symmetric is False else 'true'}"
