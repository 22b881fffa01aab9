"""``--exporter reference``: what is asked of optimum-intel, what is noticed, and, slow, optimum-intel itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
from phi3_core.cli import main
from phi3_core.errors import DiskFullError, ModelError, UsageError
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import TINY, write_random
from phi3_core.toolchains import toolchain
from phi3_core.values import Device, Recipe, Source
from phi3_openvino import quantization, reference
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="CPU")
NPU = Device(backend="openvino", id="NPU", kind="npu", name="NPU")
# A line of the table that transformers 5.5 logs.
MISFIT = "model.layers.{0, 1}.mlp.down_proj.bias | UNEXPECTED |  | \nlm_head.weight | MISSING | \n"


def none(*_, **__):
    pass


def write_source(folder, **config):
    """A tiny checkpoint with a tokenizer that knows single bytes."""
    write_random(folder, {**TINY["phi-3-medium"], "hidden_size": 128, **config})
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ messages[0]['content'] }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return Source(path=folder, model="tiny")


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "model")


@pytest.mark.parametrize(
    ("device", "recipe", "words"),
    [
        (CPU, {"precision": "fp16"}, "--weight-format fp16"),
        (CPU, {"precision": "int8"}, "--weight-format int8 --sym"),
        (CPU, {"precision": "int8", "symmetric": False}, "--weight-format int8"),
        (
            CPU,
            {"precision": "int4", "ratio": 0.6, "group_size": 64, "symmetric": False},
            "--weight-format int4 --ratio 0.6 --group-size 64 --group-size-fallback error",
        ),
        (
            CPU,
            {"precision": "int4"},
            "--weight-format int4 --sym --ratio 1.0 --group-size 128 --group-size-fallback adjust",
        ),
        (
            NPU,
            {"precision": "int4"},
            "--weight-format int4 --sym --ratio 1.0 --group-size 128 --group-size-fallback error",
        ),
    ],
)
def test_recipes_in_the_words_of_optimum_cli(source, tmp_path, device, recipe, words):
    said = " ".join(map(str, reference._command(source, device, Recipe(**recipe), tmp_path / "result")))
    assert said == (
        f"-m optimum.commands.optimum_cli export openvino --model {source.path} --library transformers "
        f"--task text-generation-with-past {words} {tmp_path / 'result'}"
    )


@pytest.mark.parametrize(
    ("device", "recipe", "message"),
    [
        (CPU, {"precision": "int4", "extra": {"exporter": "refrence"}}, "openvino knows no exporter 'refrence'"),
        (CPU, {"precision": "int4", "extra": {"calibration": "some.txt"}}, "takes no calibration text"),
        (CPU, {"precision": "int4", "group_size": 96}, "groups of 96 do not divide the 128 inputs"),
        (CPU, {"precision": "fp16"}, "rounds the rotary frequencies"),
        (CPU, {"precision": "int8", "ratio": 0.5}, "a ratio of 0.5 needs int4"),
        (NPU, {"precision": "int4", "symmetric": False}, "openvino:NPU takes symmetric weights only"),
    ],
)
def test_refused_before_anything_is_installed(source, tmp_path, device, recipe, message):
    recipe["extra"] = {"exporter": "reference", **recipe.get("extra", {})}
    with pytest.raises(UsageError, match=message):
        quantization.quantize(source, device, Recipe(**recipe), tmp_path, none)
    assert toolchain.installed() == []


def test_too_little_disk_or_memory_is_said_before_anything_is_installed(source, tmp_path, monkeypatch):
    recipe = Recipe(precision="int4", extra={"exporter": "reference"})
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(DiskFullError, match=r"the reference exporter needs 1\.1 MB, and only 1 kB are free"):
            quantization.quantize(source, CPU, recipe, tmp_path, none)
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1 << 20))
    with pytest.raises(ModelError, match=r"takes about 1\.1 GB of memory; 1\.0 MB are available"):
        quantization.quantize(source, CPU, recipe, tmp_path, none)


def test_what_is_not_called_a_failure_is_noticed(source, tmp_path, caplog):
    """A folder that our own exporter wrote, changed as a silent failure would have it."""
    result = tmp_path / "result"
    result.mkdir()
    quantization.quantize(source, CPU, Recipe(precision="int8"), result, none)
    reference._check(result, Recipe(precision="int8"), "all is well | 100%\n")
    assert "did not convert the tokenizer" in caplog.text
    with pytest.raises(ModelError, match="was asked for int4 and wrote int8"):
        reference._check(result, Recipe(precision="int4"), "")
    with pytest.raises(
        ModelError, match=r"unexpected tensor model\.layers\.{0, 1}\.mlp\.down_proj\.bias, and 1 like it"
    ):
        reference._check(result, Recipe(precision="int8"), MISFIT)
    xml = result / "openvino_model.xml"
    whole = xml.read_text(encoding="utf-8")
    xml.write_text(whole.replace('type="ReadValue"', 'type="Other"'), encoding="utf-8")
    with pytest.raises(ModelError, match="without a KV cache"):
        reference._check(result, Recipe(precision="int8"), "")
    xml.write_text(whole, encoding="utf-8")
    binary = result / "openvino_model.bin"
    binary.write_bytes(binary.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is damaged"):
        reference._check(result, Recipe(precision="int8"), "")
    binary.unlink()
    with pytest.raises(ModelError, match="ended without an error and without"):
        reference._check(result, Recipe(precision="int8"), "")


@pytest.fixture
def run(sample_store, capfd):
    """``phi3 quantize`` in the shared store, where the toolchain is made once for all tests."""

    def run(source, *arguments):
        capfd.readouterr()
        device = ("-d", "openvino:CPU", "--exporter", "reference")
        code = main(["quantize", str(source.path), *arguments, *device, "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else None, err

    yield run
    for entry in Store().entries():
        if entry.model.startswith("tiny-"):
            Store().remove(entry)


@pytest.mark.slow
def test_a_model_made_by_optimum_intel_says_so_and_answers_like_the_original(run, tmp_path):
    source = write_source(tmp_path / "tiny")
    code, made, err = run(source, "--precision", "int8")
    assert code == 0, err
    assert made["quality"]["kl_mean"] < 0.05
    folder = Path(made["path"])
    manifest = json.loads((folder / "phi3.json").read_text(encoding="utf-8"))
    assert manifest["recipe"]["extra"] == {"exporter": "reference"}
    assert {"optimum-intel", "transformers", "nncf", "openvino", "torch"} <= set(manifest["tools"])
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (source.path / name).read_bytes()
    assert not list(folder.glob("scratch-*"))


@pytest.mark.slow
def test_a_shape_that_our_graph_does_not_know(run, tmp_path, capfd):
    """Another activation: our exporter refuses and says who may know it; there is no quality to measure."""
    source = write_source(tmp_path / "tiny", hidden_act="gelu")
    assert main(["quantize", str(source.path), "-p", "int4", "-d", "openvino:CPU"]) == 4
    assert "--exporter reference" in capfd.readouterr().err
    code, made, err = run(source, "--precision", "int4", "--group-size", "64")
    assert code == 0, err
    assert made["quality"] is None
    assert "the quality is not measured, since core cannot run the original" in err


@pytest.mark.slow
def test_a_checkpoint_with_weights_that_transformers_passes_over_is_refused(run, tmp_path):
    source = write_source(tmp_path / "tiny")
    file = source.path / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header["model.layers.0.mlp.down_proj.bias"] = {
        "dtype": "F16",
        "shape": [128],
        "data_offsets": [len(data), len(data) + 256],
    }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data + bytes(256))
    code, _, err = run(source, "--precision", "int8")
    assert code == 4
    assert "does not fit transformers' Phi-3: unexpected tensor model.layers.0.mlp.down_proj.bias" in err
