"""Repositories as they are on the hub: folders, GGUF files, and what is refused before its weights are fetched."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

import gguf_files
import numpy as np
from phi3_core.errors import ModelError
from phi3_core.hub import fetch
from phi3_core.hub.address import Address, parse
from phi3_core.models.ref import look_up, stored_name
from phi3_core.store.store import Store
from phi3_core.testing.checkpoints import TINY, write_random
from stand_in_hub import support

REPOSITORY = support.REPOSITORY
WEIGHTS = support.noise(5_000)
CONFIG, TOKENIZER = b'{"model_type": "phi3"}', b"{}"
MODEL = {"config.json": CONFIG, "tokenizer.json": TOKENIZER, "model.safetensors": WEIGHTS}
GGUF = {"README.md": b"x", "phi-q4.gguf": WEIGHTS, "phi-q8.gguf": WEIGHTS, "mmproj-phi.gguf": WEIGHTS}
SPLIT = {f"big/phi-{number:05d}-of-00003.gguf": WEIGHTS for number in (1, 2, 3)}
ONNX = {"genai_config.json": b"{}", "tokenizer.json": TOKENIZER, "model.onnx": WEIGHTS, "model.onnx.data": WEIGHTS}
FOLDERS = {
    "README.md": b"x",
    "config.json": CONFIG,
    **{f"cpu/int4/{name}": content for name, content in ONNX.items()},
    **{f"directml/int4/{name}": content for name, content in ONNX.items()},
}


def config(**more: object) -> dict[str, bytes]:
    return {**MODEL, "config.json": json.dumps({"model_type": "phi3", **more}).encode()}


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
        (config(architectures=["Phi3ForSequenceClassification"]), "is a Phi3ForSequenceClassification, which", "list"),
        (config(architectures=["Phi3ForTokenClassification"]), "which classifies text and writes none", "list"),
    ],
)
def test_the_reason_is_given_before_weights_are_fetched(server, home, run_main, files, words, hint) -> None:
    server.add(REPOSITORY, files, large_from=1000)
    with pytest.raises(ModelError, match=words) as caught:
        snapshot, wanted = fetch.listed(Address(repository=REPOSITORY), offline=False)
        fetch.check_loadable(snapshot, wanted, offline=False)
    assert hint in caught.value.hint
    code, _, err = run_main("models", "pull", "--source", REPOSITORY)
    assert code == 4
    assert len(err.splitlines()) == 1
    assert run_main("models", "pull", "--source", "--dry-run", REPOSITORY)[::2] == (code, err)
    assert support.asked_for(server) <= {"config.json"}


LORA = "base_model.model.model.layers.0.mlp.down_proj.lora_A.default.weight"
SIZE = 32 * 2**20


def safetensors(*names: str) -> bytes:
    """A large file with a header, whose tensors have one byte each and the last one the rest."""
    entries = {name: {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i, name in enumerate(names)}
    header = json.dumps(entries).encode()
    return (len(header).to_bytes(8, "little") + header).ljust(SIZE, b"\0")


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
    server.add(REPOSITORY, {**MODEL, "tokenizer.json": tokenizer, "model.safetensors": safetensors(), **changes})
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
