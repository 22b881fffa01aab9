"""What a folder holds: weights, or what there is instead, and pointers in the place of files."""

from __future__ import annotations

import json
import sys

import pytest
from phi3_core.checkpoint import pointers
from phi3_core.checkpoint.contents import nested, stored_files, unusable, weight_files
from phi3_core.errors import ModelError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 4972489328\n"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.safetensors", "model-00001-of-00002.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "consolidated.safetensors"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (["a.safetensors", "b.safetensors", "config.json"], ["a.safetensors", "b.safetensors"]),
        (["adapter_model.safetensors", "adapters.safetensors", "0000100_adapters.safetensors"], []),
    ],
)
def test_the_files_that_hold_the_weights(names, expected):
    assert list(weight_files(names)) == expected


@pytest.mark.parametrize(
    ("names", "words", "hint"),
    [
        (["adapter_model.safetensors", "adapter_config.json"], "is an adapter for acme/base", "peft"),
        (["adapter_model.bin", "adapter_config.json", "README.md"], "is an adapter", "peft"),
        (["adapter_config.json"], "is an adapter", "peft"),
        (["adapters.npz"], "is an adapter", "peft"),
        (["README.md", "run-10/adapter_model.safetensors"], "in run-10 an adapter for acme/base", "acme/phi/run-10"),
        (["model.safetensors", "adapter_model.safetensors"], "beside its weights", "peft"),
        (["openvino_model.xml", "openvino_model.bin", "adapter_model.safetensors"], "beside its weights", "peft"),
        (["pytorch_model-00001-of-00002.bin", "config.json"], "pickles of PyTorch", "transformers"),
        (["consolidated.00.pth"], "pickles of PyTorch", "list"),
        (["model.pt"], "pickles", "list"),
        (["optimizer.pt", "scheduler.pt", "trainer_state.json"], "state of a training run", "list"),
        (["tf_model.h5"], "TensorFlow", "list"),
        (["flax_model.msgpack"], "Flax", "list"),
        (["modules.json", "config_sentence_transformers.json"], "sentence-transformers", "list"),
        (["weights.npz"], "arrays of NumPy", "list"),
        (["config.json", "model.safetensors.index.json"], "an index alone", "list"),
        (["config.json", "model.safetensors.part"], "an unfinished download", "list"),
        (["acme.bin"], "pickles", "list"),
    ],
)
def test_what_is_there_instead_of_weights(names, words, hint):
    found = unusable("acme/phi", names, base="acme/base")
    assert words in found.words
    assert hint in found.hint


@pytest.mark.parametrize(
    "names",
    [
        ["model.safetensors", "optimizer.pt", "training_args.bin", "trainer_state.json"],
        ["openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.bin"],
        ["model.onnx", "model.onnx.data", "genai_config.json"],
        ["phi.gguf"],
        ["onnx/model.onnx", "pytorch_model.bin"],
        ["model.safetensors", "speech-lora/adapter_model.safetensors"],
        ["model.npu"],
        [],
    ],
)
def test_weights_that_a_backend_may_load(names):
    assert unusable("acme/phi", names) is None


def test_a_backend_may_have_a_format_with_a_common_suffix():
    assert unusable("acme/phi", ["acme.bin", "config.json"], sure=True) is None


def test_a_folder_that_is_one_level_too_high(tmp_path):
    for name in ("a/model.safetensors", "b/x.gguf", "c/notes.txt", ".git/model.safetensors", "d/openvino_model.xml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    assert [folder.name for folder in nested(tmp_path)] == ["a", "b", "d"]


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "model-00001-of-00002.safetensors", "tokenizer.json", "config.json", "x.gguf"),
        *("model.onnx", "model.onnx.data", "model.onnx_data", "openvino_model.xml", "openvino_model.bin"),
    ],
)
def test_a_pointer_of_git_lfs_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(LFS.encode())
    with pytest.raises(ModelError, match="is a Git LFS pointer of 135 bytes") as caught:
        pointers.check(tmp_path)
    assert caught.value.hint == f'git -C "{tmp_path.as_posix()}" lfs pull'
    with pytest.raises(ModelError, match="is a Git LFS pointer"):
        pointers.check(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        "/annex/objects/SHA256E-s100--abc.safetensors\n",  # unlocked
        "../.git/annex/objects/aa/bb/SHA256E-s100--abc/SHA256E-s100--abc.safetensors",  # a link, without links
    ],
)
def test_a_pointer_of_git_annex_is_named(tmp_path, content):
    (tmp_path / "model.safetensors").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="is a git-annex pointer") as caught:
        pointers.check(tmp_path)
    assert "annex get" in caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize(
    ("target", "words"), [("../.git/annex/objects/aa/x", "is a git-annex pointer"), ("../blobs/abc", "does not exist")]
)
def test_a_link_to_nothing_is_named(tmp_path, target, words):
    (tmp_path / "model.safetensors").symlink_to(target)
    with pytest.raises(ModelError, match=words):
        pointers.check(tmp_path)


def test_shards_that_the_index_does_not_name_are_passed_over(tmp_path):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "model-00001-of-00003.safetensors").write_bytes(LFS.encode())
    with pytest.raises(ModelError, match="is a Git LFS pointer"):
        pointers.check(tmp_path)
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    assert sorted(places.values()) == list(stored_files(tmp_path))
    pointers.check(tmp_path)


def test_folders_with_the_names_of_files_are_passed_over(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    pointers.check(tmp_path)
    assert stored_files(tmp_path) == ()


def test_pointers_that_nothing_needs_are_passed_over(tmp_path):
    for name in ("pytorch_model.bin", "README.md", "model-00001-of-00002.safetensors", "b.gguf", "tokenizer.model"):
        (tmp_path / name).write_bytes(LFS.encode())
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "tokenizer.json").write_text('{"annex/objects/": 1}', encoding="utf-8")
    pointers.check(tmp_path)
