"""What belongs to a model besides its weights: configuration, tokenizer, chat template."""

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
    "tokenizer.model",
)


def copy_sidecars(source: Path, output: Path) -> None:
    """Copy those of the files that ``source`` has, and ``output`` does not have yet."""
    for name in FILES:
        if (source / name).is_file() and not (output / name).exists():
            shutil.copyfile(source / name, output / name)
