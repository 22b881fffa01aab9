"""Repositories as they are on the hub: folders, GGUF files, and what is refused before its weights are fetched."""

from __future__ import annotations

import io
import json
import math
import os
import re
import sys
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

import gguf_files
import numpy as np
from phi3_core.checkpoint.safetensors_header import ITEM_BYTES
from phi3_core.errors import ModelError
from phi3_core.hub import fetch
from phi3_core.hub.address import Address, parse
from phi3_core.models.ref import look_up, stored_name
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import TINY, write_random
from stand_in_hub import support

REPOSITORY = support.REPOSITORY
WEIGHTS = support.noise(5_000)
CONFIG, TOKENIZER = support.settings(), b"{}"
MODEL = {"config.json": CONFIG, "tokenizer.json": TOKENIZER, "model.safetensors": WEIGHTS}
GGUF = {
    "README.md": b"x",
    "phi-q4.gguf": WEIGHTS,
    "phi-q8.gguf": WEIGHTS,
    "mmproj-phi.gguf": WEIGHTS,
    "phi.imatrix.gguf": WEIGHTS,
}
SPLIT = {f"big/phi-{number:05d}-of-00003.gguf": WEIGHTS for number in (1, 2, 3)}
ONNX = {"genai_config.json": b"{}", "tokenizer.json": TOKENIZER, "model.onnx": WEIGHTS, "model.onnx.data": WEIGHTS}
FOLDERS = {
    "README.md": b"x",
    "config.json": CONFIG,
    **{f"cpu/int4/{name}": content for name, content in ONNX.items()},
    **{f"directml/int4/{name}": content for name, content in ONNX.items()},
}


def config(**more: object) -> dict[str, bytes]:
    return {**MODEL, "config.json": support.settings(**more)}


@pytest.mark.parametrize(
    ("files", "words", "hint"),
    [
        (GGUF, "holds GGUF files: phi-q4.gguf, phi-q8.gguf", "name one of them: acme/phi/phi-q4.gguf"),
        (SPLIT, "holds GGUF files: big/phi-00001-of-00003.gguf", "acme/phi/big/phi-00001-of-00003.gguf"),
        (FOLDERS, "has its weights in folders: cpu/int4, directml/int4", "name one of them: acme/phi/cpu/int4"),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}, "is an adapter", "merge"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": WEIGHTS}, "is an adapter", "merge"),
        ({**MODEL, "adapter_model.safetensors": WEIGHTS}, "has an adapter.* beside its weights", "merge"),
        ({"config.json": CONFIG, "pytorch_model.bin": WEIGHTS}, r"pickles of PyTorch.*pytorch_model.bin", "convert"),
        ({"consolidated.00.pth": WEIGHTS}, r"pickles of PyTorch.*consolidated.00.pth", "phi3 models list"),
        ({"README.md": b"x"}, "holds no weights", "another repository"),
        ({**MODEL, "tokenizer.json": b""} | {"tokenizer.json": TOKENIZER, "config.json": b"[]"}, "does not say", "use"),
        ({"model.safetensors": WEIGHTS, "tokenizer.json": TOKENIZER}, "does not say what kind", "another repository"),
        ({"model.safetensors": WEIGHTS, "config.json": CONFIG}, "holds no tokenizer.json", "another repository"),
        (
            {"model.safetensors": WEIGHTS, "config.json": CONFIG, "tokenizer.model": b"x"},
            "holds no tokenizer.json, only tokenizer.model",
            "another repository",
        ),
        (config(model_type="llama"), "'llama', not of the Phi-3 family", "phi3 models list"),
        (
            config(quantization_config={"quant_method": "bitsandbytes"}),
            r"quantized already \(bitsandbytes\)",
            "original",
        ),
        (config(quantization_config={"bits": 4}), r"quantized already \(an unknown method\)", "original"),
        (config(compression_config={"quant_method": "sparse"}), r"quantized already \(sparse\)", "original"),
        (config(quantization={"bits": 4, "group_size": 64}), r"quantized already \(MLX\)", "original"),
        ({**MODEL, "quantize_config.json": b"{}"}, r"quantized already \(quantize_config.json\)", "original"),
        (
            config(rope_scaling={"type": "linear", "factor": 2}),
            "acme/phi/config.json: rotary embedding of type 'linear' is unknown",
            "",
        ),
        (config(attention_bias=True), "acme/phi/config.json: attention_bias is True", ""),
        (config(hidden_act="gelu"), "acme/phi/config.json: hidden_act is 'gelu'", "--exporter reference"),
        (config(num_hidden_layers=None), "acme/phi/config.json: num_hidden_layers must be a positive integer", ""),
        (config(architectures=["Phi3ForSequenceClassification"]), "is a Phi3ForSequenceClassification, which", "list"),
        (config(architectures=["Phi3ForTokenClassification"]), "which classifies text and writes none", "list"),
    ],
)
def test_the_reason_is_given_before_weights_are_fetched(server, home, run_main, files, words, hint) -> None:
    server.add(REPOSITORY, files, large_from=1000)
    with pytest.raises(ModelError, match=words) as caught:
        snapshot, wanted = fetch.listed(Address(repository=REPOSITORY), offline=False)
        fetch.check_loadable(snapshot, wanted, offline=False)
    assert hint in (caught.value.hint or "")
    code, _, err = run_main("models", "pull", "--source", REPOSITORY)
    assert code == 4
    assert len(err.splitlines()) == 1
    assert run_main("models", "pull", "--source", "--dry-run", REPOSITORY)[::2] == (code, err)
    assert support.asked_for(server) <= {"config.json"}


LORA = "base_model.model.model.layers.0.mlp.down_proj.lora_A.default.weight"
SIZE = 32 * 2**20


def safetensors(*names: str) -> bytes:
    """A large file with a header, whose tensors have one byte each."""
    return with_header({name: ("U8", [1]) for name in names})


def with_header(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """A large file with a header of types and shapes, and with more data than its tensors have."""
    entries, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + ITEM_BYTES.get(dtype, 1) * math.prod(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    return (len(header).to_bytes(8, "little") + header).ljust(SIZE, b"\0")


LAYER = {
    "input_layernorm": [64],
    "self_attn.qkv_proj": [192, 64],
    "self_attn.o_proj": [64, 64],
    "post_attention_layernorm": [64],
    "mlp.gate_up_proj": [256, 64],
    "mlp.down_proj": [64, 128],
}


def original(*layers: int, vocabulary: int = 32064, dtype: str = "F16") -> dict[str, tuple[str, list[int]]]:
    """The tensors of a model that :func:`support.settings` describes, if it has the layers 0 and 1."""
    around = {"model.embed_tokens": [vocabulary, 64], "model.norm": [64], "lm_head": [vocabulary, 64]}
    inner = {f"model.layers.{layer}.{name}": shape for layer in layers for name, shape in LAYER.items()}
    return {f"{name}.weight": (dtype if shape[1:] else "F16", shape) for name, shape in {**around, **inner}.items()}


def unfused() -> dict[str, tuple[str, list[int]]]:
    tensors = original(0, 1)
    del tensors["model.layers.0.self_attn.qkv_proj.weight"]
    return tensors | {f"model.layers.0.self_attn.{name}_proj.weight": ("F16", [64, 64]) for name in "qkv"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((LORA, "lm_head.weight"), "acme/phi has a LoRA or similar adapter that is not merged: base_model"),
        (("model.layers.0.mlp.down_proj.base_layer.weight",), "adapter that is not merged"),
        (("model.layers.0.mlp.down_proj.qweight",), "quantized already"),
    ],
)
@pytest.mark.parametrize("form", ["single", "shards"])
def test_what_the_tensors_are_is_known_before_they_are_fetched(server, home, run_main, names, words, form) -> None:
    weights = safetensors(*names)
    if form == "single":
        files = {**MODEL, "model.safetensors": weights}
    else:
        shards = {f"model-{number:05d}-of-00002.safetensors": weights for number in (1, 2)}
        index = {"weight_map": dict.fromkeys(names, min(shards))}
        small = {"config.json": CONFIG, "tokenizer.json": TOKENIZER}
        files = {**small, **shards, "model.safetensors.index.json": json.dumps(index).encode()}
    server.add(REPOSITORY, files, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", REPOSITORY)
    assert code == 4
    assert re.search(words, err)
    assert len(err.splitlines()) == 1
    assert run_main("models", "pull", "--source", "--dry-run", REPOSITORY)[::2] == (code, err)
    assert sum(server.served(name) for name in files) < SIZE / 2


TENSORS = {
    "more layers": (original(0, 1, 2), "acme/phi has the tensors of 3 layers, but config.json says 2"),
    "fewer layers": (original(0), "acme/phi has no tensor model.layers.1.input_layernorm.weight: it has 1 layers"),
    "vocabulary": (original(0, 1, vocabulary=300), r"embed_tokens.weight is \[300, 64\], but config.json makes it"),
    "unfused": (unfused(), "but separate ones such as model.layers.0.self_attn.k_proj.weight: not the layout of Phi-3"),
    "FP8": (original(0, 1, dtype="F8_E4M3"), "tensor model.embed_tokens.weight is F8_E4M3; only F16, BF16, F32 are"),
    "other": (original(0, 1) | {"vision.weight": ("F16", [1])}, "the Phi-3 family has no place for: vision.weight"),
}


@pytest.mark.parametrize("form", ["single", "shards"])
@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_do_not_fit_the_settings_are_not_fetched(server, home, run_main, kind, form) -> None:
    tensors, words = TENSORS[kind]
    files = {**MODEL, "model.safetensors": with_header(tensors)}
    if form == "shards":
        names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        places = {name: names[place % 2] for place, name in enumerate(tensors)}
        of_shard = [{name: tensors[name] for name, shard in places.items() if shard == each} for each in names]
        del files["model.safetensors"]
        files |= dict(zip(names, map(with_header, of_shard), strict=True))
        files["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    server.add(REPOSITORY, files, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", REPOSITORY)
    assert code == 4
    assert re.search(words, err)
    assert len(err.splitlines()) == 1
    assert run_main("models", "pull", "--source", "--dry-run", REPOSITORY)[::2] == (code, err)
    assert sum(server.served(name) for name in files) < SIZE / 2
    assert not list((home / "sources").glob("*"))


def test_tensors_that_may_be_harmless_are_fetched(server, home, run_main) -> None:
    tensors = original(0, 1) | {"rotary_emb.inv_freq": ("F32", [8]), "model.norm.bias": ("F16", [64])}
    server.add(REPOSITORY, {**MODEL, "model.safetensors": with_header(tensors)}, large_from=1000)
    assert run_main("models", "pull", "--source", "--dry-run", REPOSITORY)[0] == 0


INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"phi3-custom.safetensors": WEIGHTS},
            f"has phi3-custom.safetensors, but neither model.safetensors nor {INDEX}",
        ),
        ({SHARD: WEIGHTS}, f"has {SHARD}, but neither"),
        (
            {SHARD: WEIGHTS, INDEX: {"weight_map": {"a": SHARD, "b": SHARD.replace("1", "2", 1)}}},
            f"acme/phi/model-00002-of-00002.safetensors is missing, though {INDEX} names it",
        ),
        ({SHARD: WEIGHTS, INDEX: {}}, f"acme/phi/{INDEX} has no weight_map"),
        ({SHARD: WEIGHTS, INDEX: {"weight_map": {"a": "../x"}}}, f"acme/phi/{INDEX} names a file outside"),
    ],
)
def test_weights_that_are_not_whole_are_not_fetched(server, home, run_main, files, words) -> None:
    contents = {name: item if isinstance(item, bytes) else json.dumps(item).encode() for name, item in files.items()}
    server.add(REPOSITORY, {"config.json": CONFIG, "tokenizer.json": TOKENIZER, **contents}, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", REPOSITORY)
    assert code == 4
    assert words in err
    assert len(err.splitlines()) == 1
    assert not any(name.endswith(".safetensors") for name in support.asked_for(server))


def test_an_index_beside_a_whole_file_is_left_over(server, home, run_main) -> None:
    index = json.dumps({"weight_map": {LORA: SHARD}}).encode()
    server.add(REPOSITORY, {**MODEL, INDEX: index})
    assert run_main("models", "pull", "--source", REPOSITORY)[0] == 0


@pytest.mark.parametrize(("exporter", "fetched"), [("builtin", False), ("reference", True)])
def test_settings_that_core_does_not_read_are_left_to_the_reference_exporter(
    server, home, run_main, parrot, exporter, fetched
) -> None:
    server.add(REPOSITORY, {**config(hidden_act="gelu"), "model.safetensors": WEIGHTS})
    code, _, err = run_main("quantize", REPOSITORY, "-d", "parrot", "-p", "fp16", "--exporter", exporter)
    assert ("hidden_act is 'gelu'" in err) is not fetched, err
    assert bool(server.bodies("model.safetensors")) is fetched
    assert fetched or code == 4


GGUF_KINDS = {
    "qwen2": ("qwen2", {}, None, "has the architecture 'qwen2', which is not Phi-3's"),
    "phimoe": ("phimoe", {}, None, "has the architecture 'phimoe'"),
    "bert": ("bert", {}, None, "is an embedding model"),
    "adapter": ("phi3", {"general.type": "adapter"}, None, "is an adapter"),
    "mmproj": ("clip", {}, None, "is the part of a model that reads images"),
    "type": ("phi3", {}, "IQ4_NL", "has weights of the type IQ4_NL, which is not read"),
    "tokenizer": ("phi3", {"tokenizer.ggml.model": "rwkv"}, None, "has a tokenizer of an unknown kind: 'rwkv'"),
    "split": (
        "phi3",
        {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "tekken"},
        None,
        "has a tokenizer of an unknown kind: 'gpt2' with 'tekken'",
    ),
}


@pytest.mark.parametrize("kind", GGUF_KINDS)
@pytest.mark.parametrize("parts", [1, 2])
def test_a_gguf_file_is_known_by_its_header_before_it_is_fetched(server, home, run_main, tmp_path, kind, parts) -> None:
    architecture, metadata, type_name, words = GGUF_KINDS[kind]
    tensor: Any = np.zeros((1024, SIZE // 4096), np.float32)
    if type_name is not None:
        tensor = (np.zeros((1024, 18 * (SIZE // 1024 // 18)), np.uint8), type_name)
    path = gguf_files.write(tmp_path / "x.gguf", architecture, metadata, {"token_embd.weight": tensor})
    names = ["x.gguf"] if parts == 1 else [f"x-{number:05d}-of-00002.gguf" for number in (1, 2)]
    server.add(REPOSITORY, {"README.md": b"x", **dict.fromkeys(names, path.read_bytes())}, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", f"{REPOSITORY}/{names[0]}")
    assert code == 4
    assert f"acme/phi/{names[0]} {words}" in err
    assert len(err.splitlines()) == 1
    assert run_main("models", "pull", "--source", "--dry-run", f"{REPOSITORY}/{names[0]}")[::2] == (code, err)
    assert sum(map(server.served, names)) < SIZE / 2
    assert not list((home / "sources").glob("*"))


@pytest.mark.parametrize(
    ("metadata", "more", "words"),
    [
        ({}, {"zz_pad.weight": SIZE // 4}, "see 'zz_pad.weight', for which Phi-3 has no place"),
        ({"phi3.expert_count": 4}, {}, "is a mixture of experts"),
        ({"phi3.block_count": 3}, {}, "does not have the tensors of 3 layers of Phi-3: see 'blk.2"),
        ({}, {"rope_factors_short.weight": 3}, "numbers in the tensor 'rope_factors_short.weight'"),
    ],
)
def test_a_gguf_file_with_other_tensors_is_not_fetched(
    server, home, run_main, checkpoint, tmp_path, metadata, more, words
) -> None:
    tensors = gguf_files.tensors_of(checkpoint) | {name: np.ones(size, np.float32) for name, size in more.items()}
    words_of = gguf_files.sentencepiece(size=tensors["token_embd.weight"].shape[0])
    settings = {**gguf_files.metadata_of(checkpoint), **words_of, **metadata}
    path = gguf_files.write(tmp_path / "x.gguf", "phi3", settings, tensors)
    server.add(REPOSITORY, {"x.gguf": path.read_bytes()}, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", f"{REPOSITORY}/x.gguf")
    assert code == 4
    assert words in err
    assert "acme/phi/x.gguf" in err
    assert not list((home / "sources").glob("*"))


def test_a_damaged_gguf_header_is_said_before_the_file_is_fetched(server, home, run_main) -> None:
    server.add(REPOSITORY, {"x.gguf": b"<!doctype html>".ljust(SIZE)}, large_from=1000)
    code, _, err = run_main("models", "pull", "--source", f"{REPOSITORY}/x.gguf")
    assert code == 4
    assert "acme/phi/x.gguf is not a GGUF file" in err
    assert server.served("x.gguf") < SIZE / 2


@pytest.mark.parametrize("cut", [100, 5000])
def test_the_header_is_read_again_when_the_connection_breaks(server, home, run_main, checkpoint, tmp_path, cut) -> None:
    weights = gguf_files.convert(checkpoint, tmp_path / "x.gguf").read_bytes()
    server.add(REPOSITORY, {"x.gguf": weights})
    server.fault("x.gguf", cut_after=cut, times=1)
    assert str(pulled(run_main, f"{REPOSITORY}/x.gguf")["path"]).endswith("x.gguf")


@pytest.fixture
def parrot(plugins, monkeypatch) -> None:
    plugins.add("parrot")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


def test_a_gguf_file_without_a_template_is_not_fetched_to_be_asked(
    server, home, run_main, checkpoint, tmp_path, parrot
) -> None:
    words = gguf_files.tensors_of(checkpoint)["token_embd.weight"].shape[0]
    changes = gguf_files.byte_level("gpt-4o", ["<|endoftext|>"], size=words)
    file = gguf_files.convert(checkpoint, tmp_path / "base.gguf", **{**changes, "tokenizer.chat_template": None})
    server.add(REPOSITORY, {"base.gguf": file.read_bytes()})
    code, _, err = run_main("run", "Hello", "-m", f"{REPOSITORY}/base.gguf", "-q")
    assert code == 4
    assert "acme/phi/base.gguf has no chat template, as base models have none" in err
    assert run_main("models", "pull", f"{REPOSITORY}/base.gguf")[0] == 4
    assert run_main("models", "pull", "--dry-run", f"{REPOSITORY}/base.gguf")[0] == 4
    assert not list((home / "sources").glob("*"))
    assert run_main("models", "pull", "--source", f"{REPOSITORY}/base.gguf")[0] == 0  # it can be quantized
    assert "nothing: it is in" in run_main("models", "pull", "--source", "--dry-run", f"{REPOSITORY}/base.gguf")[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "acme/phi has no chat template"),
        ({"chat_template.jinja": b"{{ messages"}, "chat template is broken"),
        ({"tokenizer_config.json": b"{"}, "acme/phi: tokenizer_config.json is damaged"),
        ({"tokenizer.json": b"{"}, "acme/phi: tokenizer.json is damaged"),
        ({"generation_config.json": b'{"eos_token_id": "x"}'}, "acme/phi: generation_config.json is damaged"),
    ],
)
def test_a_repository_that_cannot_be_asked_is_not_fetched_to_be_asked(
    server, home, run_main, parrot, chatml_folder, changes, words
) -> None:
    tokenizer = (chatml_folder / "tokenizer.json").read_bytes()
    server.add(
        REPOSITORY, {**MODEL, "tokenizer.json": tokenizer, "model.safetensors": with_header(original(0, 1)), **changes}
    )
    code, _, err = run_main("run", "Hello", "-m", REPOSITORY, "-q")
    assert code == 4
    assert words in err
    assert str(home) not in err
    assert len(err.splitlines()) == 1
    assert server.served("model.safetensors") < SIZE / 2
    assert not list((home / "sources").glob("*"))


def test_a_repository_that_can_be_asked_is_fetched_once(server, home, run_main, parrot, phi3_folder) -> None:
    tokenizer = (phi3_folder / "tokenizer.json").read_bytes()
    server.add(REPOSITORY, {**MODEL, "tokenizer.json": tokenizer})
    code, out, _ = run_main("run", "Hello world", "-m", REPOSITORY, "-d", "parrot", "-q")
    assert (code, out.strip()) == (0, "Hello world")
    assert len(server.bodies("tokenizer.json")) == 1


def test_quantized_weights_that_a_backend_loads_are_not_refused(server) -> None:
    files = {"openvino_model.xml": b"<net/>", "openvino_model.bin": WEIGHTS, "tokenizer.json": TOKENIZER}
    server.add(REPOSITORY, {**files, "config.json": config(quantization_config={"bits": 4})["config.json"]})
    snapshot, wanted = fetch.listed(Address(repository=REPOSITORY), offline=False)
    fetch.check_loadable(snapshot, wanted, offline=False)


@pytest.mark.parametrize(
    ("path", "words", "hint"),
    [
        ("cuda", "has no folder cuda", "it has cpu/int4, directml/int4"),
        ("cpu", "acme/phi/cpu at .* has its weights in folders: cpu/int4", "acme/phi/cpu/int4"),
        ("phi.gguf", "has no file phi.gguf", "no GGUF files"),
        ("config.json", "config.json is one file", "name the repository: acme/phi"),
        ("cpu/int4/model.onnx", "model.onnx is one file", "name the repository: acme/phi/cpu/int4"),
    ],
)
def test_paths_that_are_no_model(server, path, words, hint) -> None:
    server.add(REPOSITORY, FOLDERS)
    with pytest.raises(ModelError, match=words) as caught:
        fetch.listed(Address(repository=REPOSITORY, path=path), offline=False)
    assert hint in caught.value.hint


def pulled(run_main, word: str) -> dict[str, object]:
    code, out, err = run_main("models", "pull", "--source", word, "--json")
    assert code == 0, err
    found: dict[str, object] = json.loads(out)
    return found


@pytest.mark.parametrize("form", ["{}/cpu/int4", "{}@v2/cpu/int4", "{}/cpu/int4@v2", "hf://{}@v2/cpu/int4/"])
def test_a_folder_at_a_revision(server, home, run_main, form) -> None:
    server.add(REPOSITORY, {"README.md": b"x"} if "v2" in form else FOLDERS)
    commit = server.add(REPOSITORY, FOLDERS, branch="v2")
    found = pulled(run_main, form.format(REPOSITORY))
    assert found["revision"] == (commit if "v2" in form else server.repositories[REPOSITORY].branches["main"])
    assert not any(request.name.startswith("directml") for request in server.requests)
    name = "acme--phi--cpu--int4@v2" if "v2" in form else "acme--phi--cpu--int4"
    assert found["path"] == str(home / "sources" / name)
    assert {file.name for file in (home / "sources" / name).iterdir()} == {*ONNX, "phi3.json"}
    server.stop()
    for word in (form.format(REPOSITORY), name):
        assert run_main("models", "verify", word)[0] == 0
        assert json.loads(run_main("models", "show", word, "--json")[1])["entries"]
    assert run_main("models", "rm", form.format(REPOSITORY))[0] == 0
    assert not Store().entries()


def test_a_folder_without_a_tokenizer_has_that_of_the_root(server) -> None:
    above = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": b"{}", "config.json": CONFIG, "other.json": b"{}"}
    server.add(REPOSITORY, {**above, "onnx/model.onnx": WEIGHTS, "onnx/config.json": CONFIG})
    _, files = fetch.listed(Address(repository=REPOSITORY, path="onnx"), offline=False)
    names = {file.name for file in files}
    assert names == {"onnx/model.onnx", "onnx/config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny checkpoint, to be written as GGUF."""
    return write_random(tmp_path / "tiny", TINY["phi-4"], dtype="F32")


def test_a_gguf_file_is_fetched_alone(server, home, run_main, checkpoint, tmp_path) -> None:
    weights = gguf_files.convert(checkpoint, tmp_path / "phi.gguf").read_bytes()
    server.add(REPOSITORY, {**GGUF, "phi-q8.gguf": weights, **MODEL})
    found = pulled(run_main, f"https://huggingface.co/{REPOSITORY}/blob/main/phi-q8.gguf")
    assert support.asked_for(server) == {"phi-q8.gguf"}
    file = home / "sources" / "acme--phi--phi-q8.gguf" / "phi-q8.gguf"
    assert found["path"] == str(file)
    assert file.read_bytes() == weights
    file.write_bytes(weights[::-1])
    assert run_main("models", "verify", f"{REPOSITORY}/phi-q8.gguf")[0] == 4
    assert run_main("models", "verify", "--repair", f"{REPOSITORY}/phi-q8.gguf")[0] == 0
    assert file.read_bytes() == weights


@pytest.mark.parametrize("part", [1, 2])
def test_a_gguf_file_in_parts_is_fetched_whole(server, home, run_main, part, checkpoint, tmp_path) -> None:
    paths = gguf_files.convert_in_parts(checkpoint, [tmp_path / name.removeprefix("big/") for name in SPLIT])
    server.add(REPOSITORY, {**GGUF, **{f"big/{path.name}": path.read_bytes() for path in paths}})
    found = pulled(run_main, f"{REPOSITORY}/big/phi-{part:05d}-of-00003.gguf")
    folder = home / "sources" / "acme--phi--big--phi-00001-of-00003.gguf"
    assert found["path"] == str(folder / "phi-00001-of-00003.gguf")
    assert {file.name for file in folder.glob("*.gguf")} == {name.removeprefix("big/") for name in SPLIT}
    server.add(REPOSITORY, {name: WEIGHTS for name in SPLIT if "00002" not in name}, branch="torn")
    code, _, err = run_main("models", "pull", "--source", f"{REPOSITORY}/big/phi-00001-of-00003.gguf@torn")
    assert code == 4
    assert "has no big/phi-00002-of-00003.gguf, a part of" in err


# --- names in the store ---------------------------------------------------------------------------------------------


def test_different_addresses_have_different_names(home) -> None:
    store = Store()
    words = [
        *(
            "a/b",
            "a/b/c",
            "a/b/c/d",
            "a/b/c--d",
            "a/b@c",
            "a/b/@x"[:3] + "@c--d",
            "a/b/c@d",
            "a/b@d/c--d",
            "a/b/c.gguf",
        ),
        *(f"a/b/{'x' * 150}", f"a/b/{'x' * 151}", "a/b/x:y", "a/b/x_y", "a/b@refs/pr/1", "a/b@refs_pr_1"),
    ]
    if os.name != "nt":  # where it is a device, whatever the folder
        words.append("a/b/con")
    addresses = {str(parse(word)) for word in words}
    found = {stored_name(word, store) for word in words}
    assert len(found) == len(addresses)
    assert all(len(name.encode()) <= 100 for name in found)
    for name in found:
        store.make_source(name, lambda _: {})


def test_the_catalogue_s_repositories_are_the_catalogue_s_models(home) -> None:
    for word in (
        "microsoft/phi-4",
        "Microsoft/PHI-4/",
        "microsoft/phi-4@main",
        "https://huggingface.co/microsoft/phi-4/tree/main",
    ):
        assert look_up(word, Store()).name == "phi-4"
    other = look_up("microsoft/phi-4@v1", Store())
    assert (other.form, other.repository, other.revision) == ("hub", "microsoft/phi-4", "v1")


def test_a_local_folder_of_that_name_comes_first(home, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "acme" / "phi"
    folder.mkdir(parents=True)
    for name, content in MODEL.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert look_up("acme/phi", Store()).path == folder
    assert look_up("acme/phi/", Store()).path == folder
    assert look_up("hf://acme/phi", Store()).repository == "acme/phi"


def test_a_copy_of_a_repository_with_folders(home, tmp_path) -> None:
    for name, content in FOLDERS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="has its weights in folders: cpu/int4, directml/int4") as caught:
        look_up(str(tmp_path), Store())
    assert str(tmp_path / "cpu" / "int4") in caught.value.hint.replace("/", "\\" if "\\" in str(tmp_path) else "/")
    assert look_up(str(tmp_path / "cpu" / "int4"), Store()).form == "artifact"
