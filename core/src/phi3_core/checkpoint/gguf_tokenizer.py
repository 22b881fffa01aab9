"""The tokenizer that a GGUF file carries, as a ``tokenizer.json`` with the same ids.

``tokenizer.ggml.model`` says which of two kinds it is:

- ``gpt2``: byte-level BPE. ``tokenizer.ggml.pre`` names the expression that splits text into words before merging.
- ``llama``: SentencePiece's BPE. Spaces are part of the words, and characters without a token become bytes. The file
  has no merges: two tokens merge if their text together is a token, that of the highest score first.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_core.errors import ModelError

from .gguf import CONTROL, END_TOKENS, USER_DEFINED, Gguf, write_json, writing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NORMAL, _UNKNOWN, _UNUSED = 1, 2, 5
_SPACE = "▁"
PHI3_TURNS = ("<|user|>", "<|assistant|>", "<|end|>")
"""The control tokens of Phi-3's chat template."""
_PHI3_KEEPING_SPACE = {"<unk>", "<s>", "<|endoftext|>"}
"""Special tokens of Phi-3 that keep the whitespace after them. All others take it away, which GGUF does not record."""
_ALWAYS_CONTROL = {*END_TOKENS, *PHI3_TURNS, "<|system|>"}
"""Tokens that are control tokens, though converters of early 2024 had them as user-defined."""

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS: Mapping[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "dbrx": (_CL100K,),
    "smaug-bpe": (_CL100K,),
    "llama-bpe": (_CL100K,),
    "llama3": (_CL100K,),
    "llama-v3": (_CL100K,),
    "gpt-4o": (_O200K,),
    # What llama.cpp does with files that do not name their expression.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
"""The expressions that split text, each the pieces of the one before, by the name in the metadata."""
_IGNORES_MERGES = {"llama-bpe", "llama3", "llama-v3"}
"""Those with which a word that is a token is not put together from merges."""
_UNNAMED = {"<|im_sep|>": "dbrx", "<|endofprompt|>": "gpt-4o"}
"""Tokens that Phi-4 and Phi-4-mini have, by which their expression is known where the metadata has none."""


def write_tokenizer(gguf: Gguf, folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and ``generation_config.json``, with the same token ids.

    Raises:
        ModelError: the metadata is incomplete, or the tokenizer is of an unsupported type.
        StoreError: the folder cannot be written.
    """
    description = gguf.describe()
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {role: given for role, name in names.items() if (given := gguf.token_id(name)) is not None}
    settings: dict[str, Any] = {
        # The original model's class would make transformers replace the pre-tokenizer with its own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": description.context_length,
        **{f"{role}_token": gguf.tokens[given] for role, given in ids.items()},
    }
    for key in ("add_bos_token", "add_eos_token"):
        if isinstance(given := gguf.metadata.get(f"tokenizer.ggml.{key}"), bool):
            settings[key] = given
    if description.chat_template is not None:
        settings["chat_template"] = description.chat_template
    generation = {f"{role}_token_id": ids[role] for role in ("bos", "pad") if role in ids}
    tokenizer = str(_tokenizer(gguf).to_str())
    with writing(folder):
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8", newline="\n")
        write_json(folder / "tokenizer_config.json", settings)
        write_json(folder / "generation_config.json", {**generation, "eos_token_id": list(description.stop_ids)})


def check_kind(gguf: Gguf) -> None:
    """Check that the tokenizer is of a kind that is read.

    Raises:
        ModelError: it is of another kind, or there is none.
    """
    kind, split = gguf.text("tokenizer.ggml.model"), _split_name(gguf)
    if not isinstance(split, str) or kind not in _MAKERS or (kind == "llama" and split != "default"):
        raise _unsupported(gguf)
    if kind == "gpt2" and split not in _SPLITS:
        raise _unsupported(gguf)


def has_template(gguf: Gguf) -> bool:
    """Return whether the model can be asked: it has a chat template, or the control tokens of Phi-3's default one."""
    return "tokenizer.chat_template" in gguf.metadata or set(PHI3_TURNS) <= set(gguf.tokens)


def _tokenizer(gguf: Gguf) -> Tokenizer:
    from tokenizers import AddedToken  # start-up

    check_kind(gguf)
    kind = gguf.text("tokenizer.ggml.model")
    vocabulary = {token: index for index, token in enumerate(gguf.tokens)}
    if not len(vocabulary) == len(gguf.tokens) == len(gguf.token_types) or not vocabulary:
        raise ModelError(f"{gguf.path} has a damaged tokenizer: tokens that are alike or without a type")
    unknown = gguf.token_id("unknown")
    used = {
        token: index
        for token, index in vocabulary.items()
        # Rows of the embedding without a token are unused, or in older files unknown.
        if gguf.token_types[index] != _UNUSED and (gguf.token_types[index] != _UNKNOWN or index in {unknown, 0})
    }
    try:
        tokenizer = _MAKERS[kind](gguf, used)
    except ModelError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{gguf.path} has a damaged tokenizer: {error}") from error
    strips = kind == "llama" and all(token in used for token in PHI3_TURNS)
    for token, index in used.items():
        kind_of_token = gguf.token_types[index]
        if kind_of_token in {CONTROL, USER_DEFINED} or (kind == "llama" and index == unknown):
            special = kind_of_token != USER_DEFINED or token in _ALWAYS_CONTROL
            rstrip = strips and token not in _PHI3_KEEPING_SPACE
            tokenizer.add_tokens([AddedToken(token, special=special, normalized=False, rstrip=rstrip)])
    _add_ends(gguf, tokenizer)
    return tokenizer


def _unsupported(gguf: Gguf) -> ModelError:
    kind, split = gguf.text("tokenizer.ggml.model"), gguf.metadata.get("tokenizer.ggml.pre")
    return ModelError(
        f"{gguf.path} has a tokenizer of an unknown kind: {kind!r}" + (f" with {split!r}" if split else ""),
        hint="use the model's Hugging Face checkpoint",
    )


def _split_name(gguf: Gguf) -> Any:
    """Return the name of the expression that splits text; of byte-level tokenizers without one, by their tokens."""
    split = gguf.metadata.get("tokenizer.ggml.pre") or "default"
    if split != "default" or gguf.text("tokenizer.ggml.model") != "gpt2":
        return split
    return next((known for token, known in _UNNAMED.items() if token in gguf.tokens), split)


def _byte_level(gguf: Gguf, vocabulary: Mapping[str, int]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers  # start-up

    split = _split_name(gguf)
    pairs = (merge.partition(" ") for merge in gguf.texts("tokenizer.ggml.merges"))
    merges = [(left, right) for left, _, right in pairs]
    if not merges:
        raise ModelError(f"{gguf.path} has a damaged tokenizer: no merges")
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), merges, ignore_merges=split in _IGNORES_MERGES))
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in _SPLITS[split]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(gguf: Gguf, vocabulary: Mapping[str, int]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers  # start-up

    scores = gguf.metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, array) or scores.typecode not in "fd" or len(scores) != len(gguf.tokens):
        raise ModelError(f"{gguf.path} has a damaged tokenizer: tokens without a score")
    prefixed = gguf.metadata.get("tokenizer.ggml.add_space_prefix", True) is not False
    unknown = gguf.token_id("unknown")
    model = models.BPE(
        dict(vocabulary),
        _merges(vocabulary, gguf.token_types, scores),
        unk_token=gguf.tokens[0 if unknown is None else unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    replaced = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), replaced] if prefixed else [replaced])
    stripped = [decoders.Strip(" ", 1, 0)] if prefixed else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return tokenizer


def _merges(vocabulary: Mapping[str, int], types: Sequence[int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the merges in their order, as transformers derives them from a SentencePiece model."""
    words = {token: index for token, index in vocabulary.items() if types[index] == _NORMAL}

    def splits() -> Iterator[tuple[float, int, str, str]]:
        for token, index in words.items():
            for cut in range(1, len(token)):
                left, right = token[:cut], token[cut:]
                if left in words and right in words:
                    yield -scores[index], -cut, left, right

    # Of the splits of one token, the one with the longer left part comes first. The sort is stable.
    ordered = sorted(splits(), key=lambda split: split[:2])
    return [(left, right) for _, _, left, right in ordered]


def _add_ends(gguf: Gguf, tokenizer: Tokenizer) -> None:
    """Let the tokenizer put a beginning and an end around a text, if the metadata asks for it."""
    from tokenizers import processors  # start-up

    wanted = {
        role: gguf.token_id(role)
        for role in ("bos", "eos")
        if gguf.metadata.get(f"tokenizer.ggml.add_{role}_token") is True
    }
    ends = {role: (gguf.tokens[given], given) for role, given in wanted.items() if given is not None}
    if not ends:
        return
    before, after = ([ends[role][0]] if role in ends else [] for role in ("bos", "eos"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], pair=[*before, "$A", *before, "$B", *after], special_tokens=list(ends.values())
    )


_MAKERS = {"gpt2": _byte_level, "llama": _sentencepiece}
