"""What the hooks ``quantize`` of the plugins have in common, as checks for the tests of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.cli import main
from phi3_core.errors import DiskFullError, ModelError
from phi3_core.quantization import recipes
from phi3_core.quantization.calibration import calibrate
from phi3_core.quantization.importance import Importance
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Device, Recipe, Source
from tokenizers import Tokenizer, models, pre_tokenizers

Quantize = Callable[..., object]
"""The hook of a plugin, or what calls it with a recipe."""


def tiny_source(folder: Path) -> Source:
    """Write a checkpoint with a tokenizer, whose tokens are bytes, to quantize with calibration."""
    write_random(folder, {**TINY["phi-3-medium"], "hidden_size": 128})
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Source(path=folder, model="tiny")


def check_calibrations(make: Quantize, source: Source, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """4 bits are calibrated by default, with a text or with a file of moments; if that is switched off, they are not.

    Args:
        make: quantizes ``source`` with the fields of a recipe.
        source: of :func:`tiny_source`.
        folder: an empty folder.
        patch: of the test.
    """
    seen = []
    original = recipes.make_plan

    def make_plan(*arguments):
        plan = original(*arguments)
        seen.append(plan.importance)
        return plan

    patch.setattr(recipes, "make_plan", make_plan)
    text, moments = folder / "text.txt", folder / "moments.npz"
    text.write_text("Some text of the user's own.", encoding="utf-8")
    calibrate(Checkpoint.open(source.path), [[5, 6, 7]]).save(moments)
    make(precision="int4")
    make(precision="int4", extra={"calibration": str(text)})
    make(precision="int4", extra={"calibration": str(moments)})
    make(precision="int4", extra={"calibration": "none"})
    make(precision="int8")
    assert [len(each) for each in seen] == [9, 9, 9, 0, 0]
    name = "model.layers.0.mlp.down_proj.weight"
    assert len({each[name].moments.tobytes() for each in seen if each}) == 3


def check_resources_are_said(make: Callable[[], object], patch: pytest.MonkeyPatch, *, disk: str, memory: str) -> None:
    """What is too little of the disk or of memory is said with the figures, before any work.

    Args:
        make: quantizes.
        patch: of the test.
        disk: a pattern of the bytes that the model needs.
        memory: a pattern of the bytes of memory that the work needs.
    """
    usage = shutil.disk_usage(".")
    with patch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DiskFullError, match=rf"the quantized model needs {disk} MB, and only 1 kB are free"):
            make()
    available = psutil.virtual_memory()
    patch.setattr(psutil, "virtual_memory", lambda: available._replace(available=1 << 20))
    with pytest.raises(ModelError, match=rf"about {memory} MB of memory; 1\.0 MB are available"):
        make()


def check_gguf(quantize: Quantize, device: Device, name: str, file: str, folder: Path) -> None:
    """A GGUF file gives the same weights as the checkpoint that it was made from.

    Args:
        quantize: the hook.
        device: what the weights are for.
        name: one of :data:`TINY`.
        file: the file with the weights in the hook's output.
        folder: an empty folder.
    """
    import gguf_files  # which skips the test without its package

    original = write_random(folder / "original", {**TINY[name], "hidden_size": 128, "intermediate_size": 256})
    linked = gguf_files.linked(gguf_files.convert(original, folder / "m.gguf"), folder / "linked")
    shutil.copyfile(linked / "tokenizer.json", original / "tokenizer.json")
    found = []
    for each in (original, linked):
        (output := folder / f"{each.name}-output").mkdir()
        quantize(Source(path=each, model="m"), device, Recipe(precision="int4"), output, lambda *_, **__: None)
        found.append((output / file).read_bytes())
    assert found[0] == found[1]


def balancing(checkpoint: Checkpoint, scheme: Any) -> dict[str, Any]:
    """Return the fields of a plan with balanced inputs of three layers, taken back by the norms and rows of ``up``."""
    random = np.random.default_rng(4)
    importance, factors, schemes = {}, {}, {}
    for layer in checkpoint.layers:
        for weight in (layer.qkv, layer.gate_up, layer.down):
            balance = random.uniform(0.5, 2, weight.shape[1]).astype(np.float32)
            importance[weight.name] = Importance(moments=np.ones_like(balance), balance=balance)
            schemes[weight.name] = scheme
        factors[layer.gate_up.name] = np.concatenate([np.ones_like(balance), 1 / balance])
    return {"schemes": schemes, "importance": importance, "factors": factors}


def copy_source_of_sample(sample_home: Path, home: Path) -> None:
    """Give a store the sample model's source alone, so that other tests keep their artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        assert main(["models", "pull", "sample", "--source", "-q"]) == 0
    shutil.copytree(sample_home / "sources", home / "sources")


def command(device: str, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Return what runs a command for a device, and gives its exit code, its JSON if there is any, and its stderr."""

    def run(*arguments: str) -> tuple[int, Any, str]:
        capfd.readouterr()
        code = main([*arguments, "-d", device, "-q", "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else None, err

    return run
