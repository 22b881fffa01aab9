"""Decode token ids to text, one id at a time.

A token is a sequence of bytes, and a character may be split over several tokens. So ids are mapped to bytes, which an
incremental UTF-8 decoder converts to text. Its state is at most three bytes. Bytes that are not UTF-8 become U+FFFD as
soon as that is certain.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Collection, Iterable, Iterator
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

from phi3_core.errors import ModelError

if TYPE_CHECKING:
    import tokenizers

    from .tokenizer import Tokenizer

_CONTEXT_FREE = {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}
"""The tokenizers library's decoders that map each id to the same bytes at every position except the first."""


class Pieces:
    """The bytes of each token id; empty for special tokens and for ids without a token.

    Args:
        plain: the model's tokenizer.
        shown: strings of special tokens that are text all the same.

    Raises:
        ModelError: the tokenizer has no decoder, or one that is not supported.
    """

    def __init__(self, plain: tokenizers.Tokenizer, shown: Collection[str] = ()) -> None:
        kinds = set(_kinds(plain.decoder))
        unknown = sorted(kinds - _CONTEXT_FREE)
        if unknown or not kinds:
            name = f"the decoder {unknown[0]}, which is not supported" if unknown else "no decoder"
            raise ModelError(
                f"the tokenizer has {name}", hint="use a model with a byte-level or a SentencePiece tokenizer"
            )
        self._plain = plain
        # The library's byte-level decoder takes the letters of added words for bytes.
        byte_level = "ByteLevel" in kinds
        self._words: dict[int, bytes] = {
            number: token.content.encode()
            for number, token in plain.get_added_tokens_decoder().items()
            if token.content in shown or (byte_level and not token.special)
        }
        self._anchor, self._anchor_text = _anchor(plain)
        self._known: dict[int, bytes] = {}

    def at_start(self, token: int) -> bytes:
        """Return the bytes of an id at the start of a text, where most SentencePiece tokenizers drop a space."""
        if token in self._words:
            return self._words[token]
        text = self._plain.decode([token], skip_special_tokens=True)
        return self.inside(token) if "\ufffd" in text else text.encode()

    def inside(self, token: int) -> bytes:
        """Return the bytes of an id that follows other text."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._words.get(token) or self._find(token)
        return known

    def _find(self, token: int) -> bytes:
        text = self._plain.decode([*self._anchor, token], skip_special_tokens=True)[len(self._anchor_text) :]
        if "\ufffd" not in text:
            return text.encode()
        # Either U+FFFD itself, or part of a character.
        name = self._plain.id_to_token(token) or ""
        if len(name) == 6 and name.startswith("<0x"):
            return bytes.fromhex(name[3:5])
        if all(character in _BYTE_LEVEL for character in name):
            return bytes(_BYTE_LEVEL[character] for character in name)
        return text.encode()


class Decoder:
    """Decodes ids incrementally. Only complete characters are returned.

    Args:
        tokenizer: the model's tokenizer.
        continues: whether the ids go on with text, so that the first one keeps the space before its word.
    """

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False) -> None:
        self._pieces = tokenizer.pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = not continues

    def push(self, token: int) -> str:
        """Decode the next id, and return the text that it completes, which may be empty."""
        piece = self._pieces.inside(token)
        if self._at_start and piece:
            piece = self._pieces.at_start(token)
            self._at_start = False
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """End the text and drop an incomplete character; the next id begins a new text."""
        self._utf8.reset()
        self._at_start = True
        return ""


def decode(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """Return the text of all ``tokens``; equal to the chunks of a :class:`Decoder`, joined."""
    decoder = Decoder(tokenizer)
    return "".join(map(decoder.push, tokens)) + decoder.finish()


def _kinds(decoder: Any) -> Iterator[str]:
    """Yield the types of the tokenizers library's decoders that ``decoder`` consists of."""
    states = [json.loads(decoder.__getstate__())] if decoder is not None else []
    for state in states:
        if state["type"] == "Sequence":
            states += state["decoders"]
        else:
            yield state["type"]


def _anchor(plain: tokenizers.Tokenizer) -> tuple[list[int], str]:
    """Return the ids and the text of a plain letter, to stand for preceding text."""
    for letter in ascii_letters + digits:
        encoding = plain.encode(letter, add_special_tokens=False)
        # A byte token would combine with the bytes after it.
        if plain.decode(encoding.ids) == letter and not encoding.tokens[-1].startswith("<0x"):
            return encoding.ids, letter
    raise ModelError("the tokenizer knows no letters", hint="its files are damaged: fetch the model again")


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte of each character of the byte-level alphabet (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()
