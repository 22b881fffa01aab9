"""Real engines whose weights were harmed behind the back of their manifests, and the same ones unharmed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import phi3_core as phi3
import pytest
from phi3_core.backend import read_header
from phi3_core.paths import read_json, write_json
from phi3_core.store.store import Store

pytestmark = pytest.mark.slow  # each quantizes the sample model

LAYER = "model.layers.{}.{}.weight"
RUNS = 10
"""Checks of each device and precision."""
PARTS = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


def tensor(folder: Path, name: str) -> np.memmap:
    """A tensor of a checkpoint, to be changed in place."""
    file = folder / "model.safetensors"
    header, start = read_header(file)
    entry = header[name]
    return np.memmap(file, np.float16, "r+", start + entry["data_offsets"][0], tuple(entry["shape"]))


def wrong_layer(folder: Path) -> None:
    for part in PARTS:
        tensor(folder, LAYER.format(10, part))[:] = tensor(folder, LAYER.format(11, part))


def wrong_base(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 1000.0}), encoding="utf-8")


def swapped(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    queries = config["hidden_size"]
    keys = queries // config["num_attention_heads"] * config["num_key_value_heads"]
    for layer in range(config["num_hidden_layers"]):
        weight = tensor(folder, LAYER.format(layer, "self_attn.qkv_proj"))
        kept = np.array(weight[:keys])
        weight[:keys] = weight[queries : queries + keys]
        weight[queries : queries + keys] = kept


def unharmed(folder: Path) -> None:
    pass


@pytest.fixture(scope="module")
def quantized(sample_source, tmp_path_factory):
    """Returns the folder of a checkpoint whose artifact for a device is in the store, with the good one's answers."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        known = {}

        def make(device: str, harm: Callable[[Path], None]) -> Path:
            patch.setenv("PHI3_HOME", str(home))
            folder = tmp_path_factory.mktemp(harm.__name__)
            shutil.copytree(sample_source, folder, dirs_exist_ok=True)
            harm(folder)
            before = {entry.path for entry in Store().entries()}
            phi3.load(str(folder), device=device, precision="int8", check=False).close()
            (made,) = [entry.path for entry in Store().entries() if entry.path not in before and entry.backend]
            if harm is unharmed:
                known[device] = read_json(made / "phi3.json")["answers"]
            write_json(made / "phi3.json", {**read_json(made / "phi3.json"), "answers": known[device]})
            return folder

        yield make


@pytest.mark.parametrize("device", ["openvino:CPU", "dml:CPU"])
def test_harmed_weights_are_refused(quantized, device):
    quantized(device, unharmed)
    for harm in (wrong_layer, wrong_base, swapped):
        harmed = quantized(device, harm)
        with pytest.raises(phi3.BackendError, match=f"{device}: .* gives wrong answers"):
            phi3.load(str(harmed), device=device, precision="int8").close()


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("device", ["openvino:CPU", "dml:CPU"])
def test_unharmed_weights_are_never_refused(sample_source, tmp_path, monkeypatch, device, precision):
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "home"))
    for number in range(RUNS):
        shutil.rmtree(Store().root / "checks", ignore_errors=True)
        purpose = "answer" if number % 2 else "conversation"
        phi3.load(str(sample_source), device=device, precision=precision, purpose=purpose).close()
