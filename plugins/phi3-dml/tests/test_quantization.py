"""The hook's work as a whole: a folder that loads, choices made, and refusals before any work."""

from __future__ import annotations

import shutil

import numpy as np
import psutil
import pytest
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import DiskFullError, ModelError, UsageError
from phi3_core.quantization import recipes
from phi3_core.quantization.calibration import calibrate
from phi3_core.store import sidecars
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.values import Device, Recipe, Source
from phi3_dml import quantization, weights
from phi3_dml.onnx import reader, writer
from tokenizers import Tokenizer, models, pre_tokenizers

CPU = Device(backend="dml", id="CPU", kind="cpu", name="CPU")
GPU = Device(backend="dml", id="0", kind="dgpu", name="GPU")
IDS = [int(token) for token in np.random.default_rng(1).integers(3, 320, 24)]


@pytest.fixture
def source(tmp_path):
    folder = write_random(tmp_path / "model", {**TINY["phi-3-medium"], "hidden_size": 128})
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Source(path=folder, model="tiny")


@pytest.fixture
def make(source, tmp_path):
    """Quantize, and give how many weights have how many bits, and the folder."""

    def make(device=CPU, **recipe):
        output = tmp_path / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        stages = []
        quantization.quantize(
            source, device, Recipe(**recipe), output, lambda stage, done=None, total=None: stages.append(stage)
        )
        assert stages[-1] == "writing the model"
        sidecars.copy_sidecars(source.path, output)  # as core does
        assert {path.name for path in output.iterdir()} == {
            "model.onnx",
            "model.onnx.data",
            "genai_config.json",
            "config.json",
            "tokenizer.json",
        }
        assert weights.recognize(output) == recipe["precision"]
        return reader.read(output / "model.onnx").bits, output

    return make


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_precisions(make, source, device):
    checkpoint = Checkpoint.open(source.path)
    linear, head = sum(weight.raw.size for weight in checkpoint.linear), checkpoint.head.raw.size
    assert make(device, precision="fp16")[0] == {}
    assert make(device, precision="int8")[0] == {8: linear + head}
    assert make(device, precision="int4")[0] == {4: linear, 8: head}
    assert make(device, precision="int4", symmetric=False, group_size=64)[0] == {4: linear, 8: head}
    bits, _ = make(device, precision="int4", ratio=0.6)
    assert 0.3 * linear < bits[4] <= 0.6 * linear
    assert bits[4] + bits[8] == linear + head


def test_each_device_gets_its_layout(make):
    kinds = []
    for device in (CPU, GPU):
        _, output = make(device, precision="int4", group_size=32, extra={"calibration": "none"})
        inputs = reader.read(output / "model.onnx").inputs
        kinds.append((inputs["past_key_values.0.key"], "position_ids" in inputs))
    assert kinds == [(writer.FLOAT, False), (writer.FLOAT16, True)]


def test_calibration_by_default_by_file_and_not_at_all(make, source, tmp_path, monkeypatch):
    seen = []
    original = recipes.make_plan

    def plan(*given):
        found = original(*given)
        seen.append(found.importance)
        return found

    monkeypatch.setattr(recipes, "make_plan", plan)
    text, moments = tmp_path / "text.txt", tmp_path / "moments.npz"
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


@pytest.mark.parametrize(
    ("device", "recipe", "message"),
    [
        (CPU, {"precision": "int4", "group_size": 48}, "dml:CPU takes no groups of 48"),
        (CPU, {"precision": "int4", "group_size": 256}, "groups of 256 do not divide the 128 inputs"),
        (CPU, {"precision": "fp16", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
        (CPU, {"precision": "int4", "extra": {"exporter": "mine"}}, "knows no exporter 'mine'"),
        (GPU, {"precision": "int4", "symmetric": False, "group_size": 128}, "even number of groups only"),
    ],
)
def test_refused_before_the_work(source, tmp_path, device, recipe, message):
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(UsageError, match=message):
        quantization.quantize(source, device, Recipe(**recipe), output, lambda *_, **__: None)
    assert not list(output.iterdir())


def test_too_little_disk_or_memory_is_said_with_the_figures(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DiskFullError, match=r"the quantized model needs 67\.\d MB, and only 1 kB are free"):
            quantization.quantize(source, CPU, Recipe(precision="int4"), tmp_path, lambda *_, **__: None)
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1 << 20))
    with pytest.raises(ModelError, match=r"about 6\d\d\.\d MB of memory; 1\.0 MB are available"):
        quantization.quantize(source, CPU, Recipe(precision="int4"), tmp_path, lambda *_, **__: None)


@pytest.mark.parametrize("name", TINY)
def test_a_gguf_file_gives_what_its_checkpoint_gives(tmp_path, name):
    pytest.importorskip("gguf", reason='pip install "phi3-core[sample]"')
    gguf_files = pytest.importorskip("gguf_files")
    original = write_random(tmp_path / "original", {**TINY[name], "hidden_size": 128, "intermediate_size": 256})
    file = gguf_files.convert(original, tmp_path / "m.gguf")
    linked = gguf_files.linked(file, tmp_path / "linked")
    shutil.copyfile(linked / "tokenizer.json", original / "tokenizer.json")
    found = []
    for folder in (original, linked):
        (output := tmp_path / f"{folder.name}-output").mkdir()
        quantization.quantize(Source(path=folder, model="m"), CPU, Recipe(precision="int4"), output, lambda *_: None)
        found.append((output / "model.onnx.data").read_bytes())
    assert found[0] == found[1]
