"""The models of the kit: tiny checkpoints with random weights, a tokenizer and a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from .checkpoints import TINY, write_random

CONTEXT = 96
"""The context length of the models of :data:`SHAPES`."""
LONG_CONTEXT = 4096
"""That of the model ``long``."""
VOCABULARY = 320
END = 257
"""The id that ends an answer of the model."""

_WIDER = {"hidden_size": 128, "intermediate_size": 256, "bos_token_id": 256, "eos_token_id": END, "pad_token_id": END}
SHAPES: Mapping[str, Mapping[str, Any]] = {name: {**config, **_WIDER} for name, config in TINY.items()}
"""A model of each shape of the family. Groups of 32, 64 and 128 divide its layers."""
PLAIN = "phi-4"
"""The shape for tests that are not about shapes: no sliding window, one set of rotary factors."""
MODELS: Mapping[str, Mapping[str, Any]] = {
    **SHAPES,
    "long": {**_WIDER, "max_position_embeddings": LONG_CONTEXT, "original_max_position_embeddings": LONG_CONTEXT},
    "heavy": {**_WIDER, "vocab_size": 8192, "hidden_size": 256, "intermediate_size": 512},
}
"""Also one with a long context, and one of 10 MB, which is noticed where it stays in memory."""

_CONTROL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write_model(folder: Path, name: str) -> Path:
    """Write a model of :data:`MODELS` and return its folder."""
    write_random(folder, MODELS[name])
    letters = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _CONTROL])
    tokenizer.save(str(folder / "tokenizer.json"))
    # Runtimes that follow JSON schemas read the tokenizer themselves, by its class.
    settings = {"tokenizer_class": "GPT2Tokenizer", "eos_token": _CONTROL[1], "bos_token": None}
    settings["chat_template"] = _TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def random_ids(count: int, seed: int = 1) -> list[int]:
    """Return token ids that are no control tokens."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, 250, count)]
