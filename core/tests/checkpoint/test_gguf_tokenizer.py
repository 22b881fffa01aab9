"""Tokenizers made of a GGUF file's metadata have the ids of those that the metadata was made of."""

import itertools
import json
import random

import gguf_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.checkpoint.gguf_tokenizer import write_tokenizer
from phi3_core.errors import ModelError
from tokenizers import Tokenizer

WEIGHTS = {"a.weight": np.ones((4, 32), np.float16)}


def built(tmp_path, metadata, **changes):
    """The folder with the tokenizer of a file."""
    metadata = {"phi3.context_length": 64, **metadata, **changes}
    write_tokenizer(Gguf.open(gguf_files.write(tmp_path / "m.gguf", "phi3", metadata, WEIGHTS)), tmp_path)
    return tmp_path


def tokenizer_of(folder):
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def words():
    """Words of some letters and the space, of which many are made of shorter ones in several ways."""
    chance = random.Random(4)
    found = dict.fromkeys(["▁a", "ab", "▁ab", "ba", "aba", "abab", "bab", "▁▁", "▁▁▁▁", "cab", "abc", "bc"])
    known = [*found, *"abc▁"]
    while len(found) < 80:
        word = chance.choice(known) + chance.choice(known)
        if len(word) <= 8:
            found[word] = None
            known.append(word)
    return list(found)


def slowly(text, scores):
    """SentencePiece's BPE as its paper has it: of all neighbours that make a token, those of the best score merge."""
    symbols = list(text)
    while True:
        made = (left + right for left, right in itertools.pairwise(symbols))
        known = [(scores[token], -place) for place, token in enumerate(made) if token in scores]
        if not known:
            return symbols
        place = -max(known)[1]
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


@pytest.fixture(scope="module")
def phi3(tmp_path_factory):
    """A tokenizer like Phi-3's, with the scores of its words."""
    metadata = gguf_files.sentencepiece(words(), size=460)
    folder = built(tmp_path_factory.mktemp("phi3"), metadata)
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=True))
    plain = {token: scores[token] for token, kind in zip(tokens, types, strict=True) if kind == 1}
    return tokenizer_of(folder), tokens, plain


@settings(max_examples=400)
@given(text=st.text("abc ", min_size=1, max_size=40))
def test_words_merge_by_their_score(phi3, text):
    tokenizer, tokens, scores = phi3
    expected = slowly("▁" + text.replace(" ", "▁"), scores)
    assert tokenizer.encode(text, add_special_tokens=False).tokens == expected
    assert tokenizer.decode([tokens.index(token) for token in expected]) == text


def test_what_has_no_token_becomes_bytes(phi3):
    tokenizer, tokens, _ = phi3
    encoded = tokenizer.encode("é\n")
    assert encoded.tokens == ["▁", "<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(encoded.ids) == "é\n"
    assert tokenizer.token_to_id("[PAD459]") is None, "rows without a token are no words"
    assert tokenizer.get_vocab_size() == tokens.index("[PAD459]") - (459 - tokens.index("<|user|>") - 1)


def test_control_tokens_of_phi3_take_the_whitespace_after_them(phi3):
    tokenizer, _, _ = phi3

    def tokens(text):
        return [tokenizer.id_to_token(number) for number in tokenizer.encode(text).ids]

    text = "<|user|>\nab<|end|> \n<|assistant|>\n"
    assert tokens(text) == ["<|user|>", "▁ab", "<|end|>", "<|assistant|>"]
    assert tokens("</s>\n") == ["</s>"]
    assert tokens("<|endoftext|>\na") == ["<|endoftext|>", "▁", "<0x0A>", "a"]
    assert tokens("<s>\na") == ["<s>", "▁", "<0x0A>", "a"]


def test_another_vocabulary_keeps_the_whitespace(tmp_path):
    metadata = gguf_files.sentencepiece(words())
    metadata["tokenizer.ggml.tokens"] = [
        {"<|user|>": "[INST]", "<|end|>": "[/INST]"}.get(token, token) for token in metadata["tokenizer.ggml.tokens"]
    ]
    assert tokenizer_of(built(tmp_path, metadata)).encode("[INST]\na").tokens == ["[INST]", "▁", "<0x0A>", "a"]


def test_a_space_is_put_before_unless_the_file_says_not(tmp_path):
    metadata = gguf_files.sentencepiece(words())
    without = tokenizer_of(built(tmp_path, metadata, **{"tokenizer.ggml.add_space_prefix": False}))
    assert without.encode("ab a").tokens == ["ab", "▁a"]
    assert without.decode(without.encode(" ab").ids) == " ab"


def test_control_tokens_that_old_files_have_as_words(tmp_path):
    metadata = gguf_files.sentencepiece(words())
    types = metadata["tokenizer.ggml.token_type"]
    metadata["tokenizer.ggml.token_type"] = [4 if kind == 3 else kind for kind in types]
    folder = built(tmp_path, metadata)
    added = tokenizer_of(folder).get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special}
    assert {"<|user|>", "<|assistant|>", "<|end|>", "<|system|>", "<|endoftext|>"} <= special
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    tokens = metadata["tokenizer.ggml.tokens"]
    assert generation["eos_token_id"] == [tokens.index("<|endoftext|>"), tokens.index("<|end|>")]


def test_more_ids_that_end_an_answer(tmp_path):
    tokens = gguf_files.sentencepiece()["tokenizer.ggml.tokens"]
    said = {"tokenizer.ggml.eos_token_id": tokens.index("</s>"), "tokenizer.ggml.eot_token_id": tokens.index("<|end|>")}
    folder = built(tmp_path, gguf_files.sentencepiece(), **said)
    generation = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == [tokens.index(each) for each in ("</s>", "<|end|>", "<|endoftext|>")]


def test_a_beginning_and_an_end_that_the_file_asks_for(tmp_path):
    folder = built(tmp_path, gguf_files.sentencepiece(words()), **{"tokenizer.ggml.add_bos_token": True})
    assert tokenizer_of(folder).encode("a").tokens == ["<s>", "▁a"]
    assert tokenizer_of(folder).encode("a", add_special_tokens=False).tokens == ["▁a"]
    said = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert said["add_bos_token"] is True
    assert "add_eos_token" not in said


TEXT = "I'M it's HTTPServer's  x\n\n  12345,/ Ünï ña"
TAIL = [",/", " Ünï", " ña"]
CL100K = ["I", "'M", " it", "'s", " HTTPServer", "'s", " ", " x", "\n\n", " ", " ", "123", "45", *TAIL]
GPT2 = ["I", "'", "M", " it", "'s", " HTTPServer", "'s", " ", " x", "\n\n "]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("dbrx", CL100K),
        ("llama-bpe", CL100K),
        ("gpt-4o", ["I'M", " it's", " HTTPServer's", *CL100K[6:]]),
        ("gpt-2", [*GPT2, " 12345", *TAIL]),
        ("smollm", [*GPT2[:-1], "\n\n  ", *"12345", *TAIL]),
    ],
)
def test_text_is_split_as_the_file_says(tmp_path, pre, pieces):
    splits = tokenizer_of(built(tmp_path, gguf_files.byte_level(pre))).pre_tokenizer
    found = [TEXT[start:end] for _, (start, end) in splits.pre_tokenize_str(TEXT)]
    assert found == pieces
    assert "".join(found) == TEXT


@pytest.mark.parametrize(
    ("token", "known"), [("<|im_sep|>", "dbrx"), ("<|endofprompt|>", "gpt-4o"), ("<x>", "default")]
)
@pytest.mark.parametrize("pre", [None, "default"])
def test_phi4_is_known_by_its_tokens_where_no_expression_is_named(tmp_path, pre, token, known):
    ends = [*gguf_files.PHI3_ENDS, token]
    (tmp_path / "named").mkdir()
    named = built(tmp_path / "named", gguf_files.byte_level(known, ends))
    given = built(tmp_path, gguf_files.byte_level(pre, ends))
    assert (given / "tokenizer.json").read_bytes() == (named / "tokenizer.json").read_bytes()


def test_words_that_are_tokens_are_put_together_from_merges_or_not(tmp_path):
    metadata = gguf_files.byte_level("gpt-4o")
    metadata["tokenizer.ggml.tokens"].insert(0, "bath")  # without merges that make it
    metadata["tokenizer.ggml.token_type"].insert(0, 1)
    found = {}
    for pre in ("gpt-4o", "llama-bpe"):
        (folder := tmp_path / pre).mkdir()
        found[pre] = tokenizer_of(built(folder, metadata, **{"tokenizer.ggml.pre": pre})).encode("bath").tokens
    assert found == {"gpt-4o": ["b", "a", "th"], "llama-bpe": ["bath"]}


def test_an_expression_that_is_not_known_is_named(tmp_path):
    with pytest.raises(ModelError, match="unknown kind: 'gpt2' with 'tekken'"):
        built(tmp_path, gguf_files.byte_level("tekken"))
