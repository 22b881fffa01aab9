"""GGUF files in parts, links to them, and files that are known by their first bytes only."""

import os

import gguf_files
import numpy as np
import pytest
from phi3_core.checkpoint import gguf_parts
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.errors import ModelError

NAMES = ("token_embd.weight", "blk.0.ffn_up.weight", "output_norm.weight")


@pytest.fixture
def three(tmp_path):
    """A file in three parts, with a tensor in each."""
    paths = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for index, path in enumerate(paths):
        rows = np.full((4, 32), index, np.float32)
        said = {"split.no": index, "split.count": 3} | ({"phi3.context_length": 8} if index == 0 else {})
        gguf_files.write(path, "phi3", said, {NAMES[index]: rows})
    return paths


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_part_names_the_whole(three, index):
    found = Gguf.open(three[index])
    assert found.number("phi3.context_length") == 8, "the first part has the metadata"
    assert {name: tensor.file for name, tensor in found.tensors.items()} == dict(zip(NAMES, three, strict=True))
    assert found.describe().parts == 3
    assert gguf_parts.parts(three[index]) == three
    assert gguf_parts.stem(three[index]) == "m"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_missing_part_is_named(three, index):
    three[index].unlink()
    with pytest.raises(ModelError) as caught:
        Gguf.open(three[(index + 1) % 3])
    assert caught.value.message.startswith(f"{three[index]} is missing: the model is in 3 parts")
    assert f"download part {index + 1} too" in caught.value.hint


def test_all_missing_parts_are_named(three):
    three[0].unlink()
    three[2].unlink()
    with pytest.raises(ModelError) as caught:
        Gguf.open(three[1])
    assert caught.value.message == f"{three[0]} is missing: the model is in 3 parts"
    assert "download parts 1, 3 too" in caught.value.hint


def test_a_part_under_another_name(three, tmp_path):
    alone = three[1].rename(tmp_path / "blob")
    with pytest.raises(ModelError, match="is one of 3 parts, but has not the name of one"):
        Gguf.open(alone)
    two = three[0].rename(tmp_path / "n-00001-of-00002.gguf")
    three[2].rename(tmp_path / "n-00002-of-00002.gguf")
    with pytest.raises(ModelError, match="is one of 3 parts, but is one of 2 by its name"):
        Gguf.open(two)


def test_parts_in_the_wrong_order(three, tmp_path):
    three[1].rename(tmp_path / "kept")
    three[2].rename(three[1])
    (tmp_path / "kept").rename(three[2])
    with pytest.raises(ModelError, match="is part 3 of 3, not 2"):
        Gguf.open(three[0])


def test_a_tensor_that_two_parts_have(three):
    said = {"split.no": 1, "split.count": 3}
    gguf_files.write(three[1], "phi3", said, {NAMES[0]: np.zeros((4, 32), np.float32)})
    with pytest.raises(ModelError, match=r"has the tensor 'token_embd\.weight', which another part has too"):
        Gguf.open(three[2])


def test_a_damaged_part_is_named(three):
    three[2].write_bytes(three[2].read_bytes()[:-200])
    with pytest.raises(ModelError) as caught:
        Gguf.open(three[0])
    assert caught.value.message.startswith(f"{three[2]} is truncated")


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_parts_are_found_beside_their_links(three, tmp_path):
    (links := tmp_path / "snapshot").mkdir()
    (blobs := tmp_path / "blobs").mkdir()
    for number, path in enumerate(three):
        (links / path.name).symlink_to(path.rename(blobs / f"sha{number}"))
    found = Gguf.open(links / three[1].name)
    assert found.tensors[NAMES[2]].file == links / three[2].name


def test_names_that_only_look_like_parts(tmp_path):
    for name in ("m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-1-of-3.gguf", "m.gguf", "m-00001-of-00002.txt"):
        assert gguf_parts.parts(tmp_path / name) == [tmp_path / name]


def test_a_file_without_a_suffix_is_known_by_its_first_bytes(tmp_path):
    for name, content, expected in (
        ("sha256-aa", b"GGUF\x03\0\0\0", True),
        ("x.GGUF", b"", True),
        ("x.bin", b"ggml", False),
        ("short", b"GG", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert gguf_parts.is_gguf(tmp_path / name) == expected
    assert not gguf_parts.is_gguf(tmp_path)


def test_the_only_model_in_a_folder(tmp_path):
    assert gguf_parts.only_model_in(tmp_path) is None
    (tmp_path / "mmproj-f16.gguf").write_bytes(b"")
    assert gguf_parts.only_model_in(tmp_path) == tmp_path / "mmproj-f16.gguf", "and is refused by its content"
    for number in (2, 1):
        (tmp_path / f"m-{number:05}-of-00002.gguf").write_bytes(b"")
    assert gguf_parts.only_model_in(tmp_path) == tmp_path / "m-00001-of-00002.gguf"
    (tmp_path / "._one.gguf").write_bytes(b"\0\5\x16\7")
    assert gguf_parts.only_model_in(tmp_path) == tmp_path / "m-00001-of-00002.gguf", "what macOS leaves is none"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert gguf_parts.only_model_in(tmp_path) is None, "whole weights are preferred"
    (tmp_path / "model.safetensors").unlink()
    for number in range(8):
        (tmp_path / f"m-Q{number}.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds 9 GGUF models: m-00001-of-00002\.gguf, m-Q0.* and 3 more") as caught:
        gguf_parts.only_model_in(tmp_path)
    assert caught.value.hint == f"name one of them: {tmp_path / 'm-00001-of-00002.gguf'}"
