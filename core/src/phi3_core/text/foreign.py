"""Tokenizers in forms that are not read: what a folder has in the place of ``tokenizer.json``."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

_FORMS = ("tokenizer.model", "spiece.model", "tekken.json", "*.tiktoken", "vocab.json", "vocab.txt")
"""SentencePiece, Mistral's and OpenAI's tiktoken, and the vocabularies of transformers' slow tokenizers."""


def found_instead(names: Iterable[str]) -> str | None:
    """Return the file with a tokenizer in another form, from the names of the files in a folder; None without one."""
    return min((name for name in names if any(fnmatch.fnmatchcase(name, form) for form in _FORMS)), default=None)


def conversion(folder: str) -> str:
    """Return the command that writes ``tokenizer.json`` into a folder whose tokenizer has another form."""
    convert = f"T.from_pretrained('{folder}').save_pretrained('{folder}')"
    return f'python -c "from transformers import AutoTokenizer as T; {convert}"'
