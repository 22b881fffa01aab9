"""Files that belong to a model besides its weights: configuration, tokenizer and chat template."""

from __future__ import annotations

import shutil
from pathlib import Path

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
)


def copy_sidecars(source: Path, output: Path) -> None:
    """Copy the configuration, tokenizer and chat template from ``source`` to ``output``, except for existing files."""
    for name in FILES:
        if (source / name).is_file() and not (output / name).exists():
            shutil.copyfile(source / name, output / name)
