"""From ids to text, one id at a time.

An id stands for bytes rather than for text: a character may be spread over several ids. So ids become bytes
first, and an incremental UTF-8 decoder makes text of them. Its state is at most three bytes, whatever the ids
are. Bytes that are not UTF-8 become U+FFFD as soon as that is certain.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any

from phi3_core.errors import ModelError

if TYPE_CHECKING:
    import tokenizers

    from .tokenizer import Tokenizer

_CONTEXT_FREE = {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}
"""Decoders of the library that give every id the same bytes wherever it stands, the first place apart."""


class Pieces:
    """The bytes that each id stands for; none for special tokens and for ids without a token."""

    def __init__(self, plain: tokenizers.Tokenizer) -> None:
        kinds = set(_kinds(plain.decoder))
        unknown = sorted(kinds - _CONTEXT_FREE)
        if unknown or not kinds:
            name = f"the decoder {unknown[0]}, which is not supported" if unknown else "no decoder"
            raise ModelError(
                f"the tokenizer has {name}", hint="use a model with a byte-level or a SentencePiece tokenizer"
            )
        self._plain = plain
        self._anchor, self._anchor_text = _anchor(plain)
        self._known: dict[int, bytes] = {}

    def at_start(self, token: int) -> bytes:
        """Return the bytes of an id that no text precedes: most SentencePiece tokenizers drop a space there."""
        text = self._plain.decode([token], skip_special_tokens=True)
        return self.inside(token) if "\ufffd" in text else text.encode()

    def inside(self, token: int) -> bytes:
        """Return the bytes of an id that follows some text."""
        known = self._known.get(token)
        if known is None:
            known = self._known[token] = self._find(token)
        return known

    def _find(self, token: int) -> bytes:
        text = self._plain.decode([*self._anchor, token], skip_special_tokens=True)[len(self._anchor_text) :]
        if "\ufffd" not in text:
            return text.encode()
        # Either the replacement character itself, or part of a character.
        name = self._plain.id_to_token(token) or ""
        if len(name) == 6 and name.startswith("<0x"):
            return bytes.fromhex(name[3:5])
        if all(character in _BYTE_LEVEL for character in name):
            return bytes(_BYTE_LEVEL[character] for character in name)
        return text.encode()


class Decoder:
    """Makes text of ids as they come. A character is given out when it is complete, never in parts."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pieces = tokenizer.pieces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def push(self, token: int) -> str:
        """Take the next id and return the text that it completes, which may be empty."""
        piece = self._pieces.inside(token)
        if self._at_start and piece:
            piece = self._pieces.at_start(token)
            self._at_start = False
        return self._utf8.decode(piece)

    def finish(self) -> str:
        """End the text, dropping an incomplete character; the next id begins a new one."""
        self._utf8.reset()
        self._at_start = True
        return ""


def decode(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """Return the text of all ``tokens``, which is by construction what a :class:`Decoder` gives piece by piece."""
    decoder = Decoder(tokenizer)
    return "".join(map(decoder.push, tokens)) + decoder.finish()


def _kinds(decoder: Any) -> Iterator[str]:
    """Yield the names of the library's decoders that ``decoder`` is made of."""
    states = [json.loads(decoder.__getstate__())] if decoder is not None else []
    for state in states:
        if state["type"] == "Sequence":
            states += state["decoders"]
        else:
            yield state["type"]


def _anchor(plain: tokenizers.Tokenizer) -> tuple[list[int], str]:
    """Find ids of a plain letter, to hold the place of preceding text."""
    for letter in ascii_letters + digits:
        encoding = plain.encode(letter, add_special_tokens=False)
        # A byte token would join the bytes after it.
        if plain.decode(encoding.ids) == letter and not encoding.tokens[-1].startswith("<0x"):
            return encoding.ids, letter
    raise ModelError("the tokenizer knows no letters", hint="its files are damaged: fetch the model again")


def _byte_level_alphabet() -> dict[str, int]:
    """Return the byte of each character with which byte-level tokenizers write bytes down (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()
