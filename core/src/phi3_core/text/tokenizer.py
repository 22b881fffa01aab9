"""The tokenizer of a model, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from phi3_core.errors import ModelError, UsageError
from phi3_core.textfiles import decode_marked

from .decoder import Pieces, decode
from .guard import Guard
from .template import PHI3_TEMPLATE, ChatTemplate

ROLES = ("system", "user", "assistant", "tool")

_REPAIR = "fetch the model again, or see what is wrong with `phi3 models verify`"
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ENDS = ("<|end|>", "<|endoftext|>", "<|im_end|>")
_PHI3_TURNS = ("<|user|>", "<|assistant|>", "<|end|>")


class Tokenizer:
    """Encodes conversations and text to token ids, and decodes ids to text.

    Control tokens come from the chat template only: the string of one in a message is encoded as ordinary text.

    Args:
        plain: the tokenizer of the tokenizers library.
        template: the chat template.
        stop_ids: ids that end an answer.
    """

    def __init__(self, plain: tokenizers.Tokenizer, template: ChatTemplate, stop_ids: Iterable[int]) -> None:
        # A tokenizer saved after training may have truncation and padding enabled.
        plain.no_truncation()
        plain.no_padding()
        self.stop_ids: tuple[int, ...] = tuple(sorted(set(stop_ids)))
        self.vocabulary_size: int = plain.get_vocab_size(with_added_tokens=True)
        self.pieces = Pieces(plain)
        self._template = template
        self._guard = Guard(plain, self.stop_ids)

    @classmethod
    def from_folder(cls, path: Path) -> Tokenizer:
        """Read a tokenizer from ``tokenizer.json`` and, if they exist, the configuration files and chat template.

        Raises:
            ModelError: ``tokenizer.json`` is missing, a file is damaged, or there is no chat template. Phi-3 models
                have a default template.
        """
        plain = _read_tokenizer(path / "tokenizer.json")
        config = _read_json(path / "tokenizer_config.json")
        special = _special_tokens(config)
        added = {token.content: number for number, token in plain.get_added_tokens_decoder().items()}
        template = ChatTemplate(_read_template(path, config, added), special)
        return cls(plain, template, _stop_ids(path, plain, added, special.get("eos_token")))

    def encode_chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Return the ids of a conversation.

        Args:
            messages: mappings with ``role`` and ``content``, oldest first.
            add_generation_prompt: whether to append the beginning of the assistant's answer.

        Raises:
            UsageError: a message is invalid, or the chat template rejects the conversation.
            ModelError: the chat template is broken.
        """
        roles, contents = _check(messages)

        def render(texts: list[str]) -> str:
            turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
            return self._template.render(turns, add_generation_prompt=add_generation_prompt)

        return self._guard.encode(contents, render, also_in=self._template.source)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without control tokens."""
        _check_unicode(text, "the text")
        return self._guard.encode([text], "".join)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, without special tokens and an incomplete character at the end."""
        return decode(self, ids)


def _check(messages: Sequence[Mapping[str, str]]) -> tuple[list[str], list[str]]:
    """Return the roles and the contents of ``messages``."""
    if isinstance(messages, (str, Mapping)) or not messages:
        raise UsageError("there are no messages", hint="give a list with at least one message")
    for place, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise UsageError(f"message {place} has the role {role!r}", hint=f"roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise UsageError(f"the content of message {place} is not a string", hint="only text is understood")
        _check_unicode(message["content"], f"message {place}")
    return [message["role"] for message in messages], [message["content"] for message in messages]


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name} is not valid Unicode", hint="it was probably not read as UTF-8") from error


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    text = _read_text(path)
    if text is None:
        raise ModelError(f"{path} is missing", hint=_REPAIR)
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{path} is damaged: {error}", hint=_REPAIR) from error


def _read_text(path: Path) -> str | None:
    """Return the content of a file with line feeds as line ends, or None if it does not exist.

    Editors on Windows write UTF-8 with a byte-order mark, or UTF-16.
    """
    try:
        return decode_marked(path.read_bytes()).replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint=_REPAIR) from error


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file does not exist."""
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}", hint=_REPAIR) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no JSON object", hint=_REPAIR)
    return value


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the strings of the special tokens, which the configuration has as strings or as objects."""
    given = {name: config.get(name) for name in _SPECIAL_NAMES}
    strings = {name: value.get("content") if isinstance(value, dict) else value for name, value in given.items()}
    return {name: string for name, string in strings.items() if isinstance(string, str)}


def _read_template(folder: Path, config: Mapping[str, Any], added: Collection[str]) -> str:
    template = _read_text(folder / "chat_template.jinja")
    if template is None:
        template = config.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    if template is None and all(token in added for token in _PHI3_TURNS):
        template = PHI3_TEMPLATE
    if not isinstance(template, str):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'} has no chat template",
            hint="use a model that was tuned for chat, or put its template into chat_template.jinja",
        )
    return template


def _stop_ids(
    folder: Path, plain: tokenizers.Tokenizer, added: Mapping[str, int], eos_token: str | None
) -> Iterator[int]:
    for name in ("generation_config.json", "config.json"):
        given = _read_json(folder / name).get("eos_token_id")
        if given is not None:
            ids = given if isinstance(given, list) else [given]
            if not all(type(number) is int and number >= 0 for number in ids):
                raise ModelError(f"{folder / name} is damaged: eos_token_id is {given!r}", hint=_REPAIR)
            yield from ids
            break
    eos_id = plain.token_to_id(eos_token) if eos_token else None
    if eos_id is not None:
        yield eos_id
    phi3 = all(token in added for token in _PHI3_TURNS)
    for token in (*_ENDS, "<|assistant|>") if phi3 else _ENDS:
        if token in added:
            yield added[token]
