"""What the files beside ``tokenizer.json`` say: special and added tokens, chat template, and ids that end an answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from attrs import define

from phi3_core.errors import ModelError
from phi3_core.textfiles import decode_marked, lone_surrogate

from . import foreign
from .template import PHI3_TEMPLATE

logger = logging.getLogger("phi3_core")

REPAIR = "fetch the model again; for one in the store, phi3 models verify MODEL says what is wrong"
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ENDS = ("<|end|>", "<|endoftext|>", "<|im_end|>")
_PHI3_TURNS = ("<|user|>", "<|assistant|>", "<|end|>")


@define
class TextSettings:
    """The settings in a model's folder. Each file is optional, and is read once."""

    folder: Path
    config: Mapping[str, Any]
    """``tokenizer_config.json``."""
    special_map: Mapping[str, Any]
    """``special_tokens_map.json``, which has what older versions of transformers leave out of ``config``."""
    model: Mapping[str, Any]
    """``config.json``."""

    @classmethod
    def read(cls, folder: Path) -> TextSettings:
        """Read the settings in a folder.

        Raises:
            ModelError: a file is damaged.
        """
        names = ("tokenizer_config", "special_tokens_map", "config")
        config, special_map, model = (_read_json(folder / f"{name}.json") for name in names)
        return cls(folder, config, special_map, model)

    @property
    def embedding_rows(self) -> int | None:
        """The number of token ids that the weights know; None if it is not stated."""
        rows = self.model.get("vocab_size")
        return rows if type(rows) is int and rows > 0 else None

    def special_tokens(self) -> dict[str, str]:
        """Return the strings of special tokens by their names, such as ``bos_token``."""
        found: dict[str, str] = {}
        for source in (self.config, self.special_map):
            extra = source.get("extra_special_tokens")
            for name, value in {
                **(extra if isinstance(extra, dict) else {}),
                **{name: source.get(name) for name in _SPECIAL_NAMES},
            }.items():
                if (string := _string(value)) is not None:
                    found.setdefault(str(name), string)
        return found

    def additional_special_tokens(self) -> list[str]:
        """Return the strings of special tokens without a name."""
        found: list[str] = []
        for source in (self.config, self.special_map):
            for name in ("additional_special_tokens", "extra_special_tokens"):
                given = source.get(name)
                values = given if isinstance(given, list) else ()
                found += [string for value in values if (string := _string(value)) is not None]
        return list(dict.fromkeys(found))

    def add_tokens(self, plain: tokenizers.Tokenizer) -> None:
        """Add the tokens that the settings have and ``tokenizer.json`` does not, where their ids follow its own."""
        missing = {number: token for number, token in self._added_tokens() if plain.token_to_id(token.content) is None}
        if not missing:
            return
        following = max(plain.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        for number in sorted(missing):
            if number == following:
                plain.add_tokens([missing[number]])
                following += 1
            else:
                logger.warning(
                    "%s has the token %r at %d, and tokenizer.json ends before %d: it is left out",
                    *(self.folder, missing[number].content, number, following),
                )

    def _added_tokens(self) -> Iterator[tuple[int, tokenizers.AddedToken]]:
        decoder = self.config.get("added_tokens_decoder")
        for number, value in (decoder if isinstance(decoder, dict) else {}).items():
            if str(number).isdecimal() and (string := _string(value)):
                flags = {
                    name: value[name]
                    for name in ("special", "lstrip", "rstrip", "single_word", "normalized")
                    if isinstance(value, dict) and isinstance(value.get(name), bool)
                }
                yield int(number), tokenizers.AddedToken(string, **flags)
        path = self.folder / "added_tokens.json"
        special = {*self.special_tokens().values(), *self.additional_special_tokens()}
        for string, number in _read_json(path).items():
            if type(number) is int and string:
                yield number, tokenizers.AddedToken(string, special=string in special, normalized=string not in special)

    def template(self, added: Collection[str]) -> tuple[str | None, str]:
        """Return the chat template, or None and what is missing. Phi-3 models have a default template."""
        template: object = _read_text(self.folder / "chat_template.jinja")
        if template is None:
            template = self.config.get("chat_template")
        if template is None:  # where processors of older versions of transformers keep it
            template = _read_json(self.folder / "chat_template.json").get("chat_template")
        if isinstance(template, list):
            template = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        missing = "no chat template"
        if isinstance(template, dict):
            if template:
                missing = f"no chat template called default, only {', '.join(map(str, template))}"
            template = template.get("default")
        elif template is None and is_phi3(added):
            template = PHI3_TEMPLATE
        return (template, "") if isinstance(template, str) else (None, missing)

    def stop_ids(self, plain: tokenizers.Tokenizer, added: Mapping[str, int]) -> Iterator[int]:
        """Yield the ids that end an answer.

        Raises:
            ModelError: ``eos_token_id`` is no id.
        """
        generation = _read_json(self.folder / "generation_config.json")
        for name, content in (("generation_config.json", generation), ("config.json", self.model)):
            given = content.get("eos_token_id")
            if given is not None:
                ids = given if isinstance(given, list) else [given]
                if not all(type(number) is int and number >= 0 for number in ids):
                    raise ModelError(f"{self.folder / name} is damaged: eos_token_id is {given!r}", hint=REPAIR)
                yield from ids
                break
        eos_token = self.special_tokens().get("eos_token")
        eos_id = plain.token_to_id(eos_token) if eos_token else None
        if eos_id is not None:
            yield eos_id
        for token in (*_ENDS, "<|assistant|>") if is_phi3(added) else _ENDS:
            if token in added:
                yield added[token]


def is_phi3(added: Collection[str]) -> bool:
    """Return whether added tokens are those of Phi-3's turns."""
    return all(token in added for token in _PHI3_TURNS)


def read_tokenizer(path: Path, subject: str) -> tokenizers.Tokenizer:
    """Read ``tokenizer.json`` at ``path``, which belongs to ``subject``.

    Raises:
        ModelError: it is missing or damaged.
    """
    text = _read_text(path)
    if text is None:
        folder = path.parent
        other = foreign.found_instead(entry.name for entry in folder.iterdir()) if folder.is_dir() else None
        if other is None:
            raise ModelError(f"{subject} has no {path.name}", hint=REPAIR)
        hint = f"convert it: {foreign.conversion(folder.as_posix())}"
        raise ModelError(f"{subject} has no {path.name}, only {other}", hint=hint)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{path} is damaged: {error}", hint=REPAIR) from error


def _string(value: object) -> str | None:
    """Return the string of a token, which files have as a string or as an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _read_text(path: Path) -> str | None:
    """Return the content of a file with line feeds as line ends, or None if it does not exist.

    Editors on Windows write UTF-8 with a byte-order mark, or UTF-16.
    """
    try:
        return decode_marked(path.read_bytes()).replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=REPAIR) from error


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file does not exist."""
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}", hint=REPAIR) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object", hint=REPAIR)
    if "\\ud" in text.lower() and (half := lone_surrogate(json.dumps(value, ensure_ascii=False))) is not None:
        raise ModelError(f"{path} is damaged: {half} is half of a character", hint=REPAIR)
    return value
