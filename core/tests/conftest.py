"""What core's tests share: commands, and two small tokenizers of the kinds that matter.

They are Phi-3's own and the byte-level one of Phi-4 and of the sample.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import phi3_core as phi3
import pytest
from phi3_core.cli import main
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

WORDS = ("the", "capital", "of", "France", "is", "Paris", "Hello", "world", "end", "user", "assistant", "system")
PLAIN = [chr(code) for code in range(0x20, 0x7F)] + ["\n", "é", "ü"]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def merges_of(words: list[str]) -> list[tuple[str, str]]:
    """The merges that build each word from the left."""
    pairs = [(word[:length], word[length]) for word in words for length in range(1, len(word))]
    return list(dict.fromkeys(pairs))


def make_phi3_tokenizer() -> Tokenizer:
    """SentencePiece's BPE as in Phi-3: a space before everything, bytes for the unknown, tokens that eat whitespace."""
    merges = merges_of(["▁" + word for word in WORDS] + ["<|"])
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "你"]
    names += [character for character in PLAIN if character not in " \n"] + [left + right for left, right in merges]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in ("<unk>", "<s>")])
    tokenizer.add_tokens([AddedToken("</s>", normalized=False, rstrip=True)])
    turns = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, special=True, rstrip=name != "<|endoftext|>") for name in turns]
    )
    return tokenizer


def make_byte_level_tokenizer() -> Tokenizer:
    """GPT-2's kind of BPE, with ChatML's tokens."""
    merges = merges_of(["Ġ" + word for word in WORDS] + list(WORDS) + ["<|", "|>"])
    names = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        *(left + right for left, right in merges),
    ]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names[:3]])
    return tokenizer


def write_folder(folder: Path, tokenizer: Tokenizer, **files: object) -> Path:
    """Save a tokenizer; each of ``files`` is written as JSON under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def phi3_tokenizer() -> Tokenizer:
    """The library's tokenizer, to be changed at will."""
    return make_phi3_tokenizer()


@pytest.fixture
def byte_level_tokenizer() -> Tokenizer:
    """The library's tokenizer, to be changed at will."""
    return make_byte_level_tokenizer()


@pytest.fixture
def make_folder(tmp_path) -> Callable[..., Path]:
    """Save a tokenizer into a folder; keyword arguments are written as JSON files."""
    return partial(write_folder, tmp_path / "model")


@pytest.fixture(scope="session")
def phi3_folder(tmp_path_factory) -> Path:
    """A Phi-3-like folder without a chat template. Not to be changed."""
    return write_folder(
        tmp_path_factory.mktemp("phi3"), make_phi3_tokenizer(), tokenizer_config={"eos_token": "<|endoftext|>"}
    )


@pytest.fixture(scope="session")
def chatml_folder(tmp_path_factory) -> Path:
    """A folder with a byte-level tokenizer and a ChatML template. Not to be changed."""
    return write_folder(
        tmp_path_factory.mktemp("chatml"),
        make_byte_level_tokenizer(),
        tokenizer_config={"chat_template": CHATML, "eos_token": {"content": "<|im_end|>"}, "bos_token": None},
    )


@pytest.fixture(scope="session")
def write_source(phi3_folder) -> Callable[[Path], Path]:
    """Write original weights, as far as a parrot cares, to a folder that is not there yet."""

    def write(folder: Path) -> Path:
        shutil.copytree(phi3_folder, folder)
        config = {"model_type": "phi3", "vocab_size": 32064}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "model.safetensors").write_bytes(b"\0" * 8)
        return folder

    return write


@pytest.fixture
def source(write_source, tmp_path) -> str:
    """Original weights, as far as a parrot cares."""
    return str(write_source(tmp_path / "tiny"))


@pytest.fixture(scope="module")
def shared_parrot(plugins_at, write_source, tmp_path_factory) -> Iterator[phi3.Model]:
    """The model ``tiny`` on a parrot, for all tests of a module that neither close it nor end its process.

    Once it is loaded, nobody finds its backend any more.
    """
    folder = tmp_path_factory.mktemp("shared")
    site = folder / "site"
    site.mkdir()
    plugins_at(site).add("parrot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(folder / "home"))
        patch.setenv("PHI3_CONFIG", "none")
        patch.setenv("PYTHONPATH", str(site))
        patch.syspath_prepend(str(site))
        model = phi3.load(str(write_source(folder / "tiny")), device="parrot")
    with model:
        yield model


@pytest.fixture
def run_main(capfd) -> Callable[..., tuple[int, str, str]]:
    """Run one command in this process; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        capfd.readouterr()
        try:
            code: object = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run
