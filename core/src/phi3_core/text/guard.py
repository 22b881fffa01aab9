"""Encode messages so that their text never becomes a control token.

Tokenizers match the strings of their added tokens in the whole rendered conversation, including the messages. So the
strings of control tokens are split in the messages by a separator, a private-use character that occurs nowhere else.
They no longer match, and the first normalizer of a second tokenizer removes the separator before the text is encoded as
usual.

Control tokens are the special tokens, those that the tokenizer's settings name, those that end an answer, and those
that the chat template writes. Other added tokens are words that were added to the vocabulary, and mean the same in
messages.

This does not cover a template that puts a message's content into the middle of a token's string. Phi-3's template puts
the role into such a place, but roles are a fixed list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import Any

import tokenizers
from attrs import field, frozen

from phi3_core.errors import UsageError

from .disarmed import DisarmedText, Marks

_PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))
_SENTENCE_ENDS = {"<s>", "</s>"}
"""SentencePiece's control tokens, which some tokenizers, Phi-3's among them, do not mark as special."""
_WORD = re.compile(r"[\w\s▁.'’-]*")
"""Added tokens that a template writes as ordinary text, and whitespace."""
_LONG_TEXT = 8
"""Characters per allowed token beyond which a text is counted in pieces, before it is encoded as a whole."""
_PIECE = 16_384
"""Characters of such a piece. Shorter texts are not counted first.

Cutting a text into pieces of this size adds far fewer tokens than :data:`_MARGIN`.
"""
_MARGIN = 1.25


class TooManyTokensError(Exception):
    """The text has far more tokens than allowed."""


@frozen
class _Strings:
    """The strings of control tokens."""

    all: frozenset[str]
    long: tuple[str, ...] = field(init=False)
    single: tuple[str, ...] = field(init=False)
    beginnings: frozenset[str] = field(init=False)
    longest: int = field(init=False)

    @long.default
    def _long(self) -> tuple[str, ...]:
        return tuple(sorted(string for string in self.all if len(string) > 1))

    @single.default
    def _single(self) -> tuple[str, ...]:
        return tuple(sorted(string for string in self.all if len(string) == 1))

    @beginnings.default
    def _beginnings(self) -> frozenset[str]:
        return frozenset(string[:length] for string in self.long for length in range(1, len(string)))

    @longest.default
    def _longest(self) -> int:
        return max(map(len, self.long), default=0)


class Guard:
    """Encodes messages, with control tokens in their text disarmed.

    Args:
        plain: the model's tokenizer.
        stop_ids: ids that count as control tokens, besides special tokens.
        named: strings of tokens that the tokenizer's settings name as special.
    """

    def __init__(self, plain: tokenizers.Tokenizer, stop_ids: Collection[int], named: Collection[str] = ()) -> None:
        self._plain = plain
        added = plain.get_added_tokens_decoder()
        control = _SENTENCE_ENDS.union(named)
        strings = {
            token.content
            for number, token in added.items()
            if token.special or number in stop_ids or token.content in control
        }
        self._strings = _Strings(frozenset(strings))
        self._others = [
            token.content
            for token in added.values()
            if token.content not in strings and not _WORD.fullmatch(token.content)
        ]
        unknown = getattr(plain.model, "unk_token", None)
        # The token for unknown characters is not a control token.
        self._control = {
            number: token.content.strip()
            for number, token in added.items()
            if (token.special or number in stop_ids) and token.content != unknown
        }
        self._disarming: tuple[Marks, frozenset[str], tokenizers.Tokenizer] | None = None

    def encode(
        self,
        texts: Sequence[str],
        render: Callable[[Sequence[str]], str],
        *,
        also_in: str = "",
        written: str = "",
        most: int | None = None,
    ) -> list[int]:
        """Return the token ids of ``render(texts)``; only text that ``render`` adds can become control tokens.

        Args:
            texts: the contents of the messages.
            render: applies the chat template.
            also_in: text that ``render`` may add; it contains none of the characters used for disarming.
            written: what ``render`` makes of other texts; added tokens in it are control tokens.
            most: number of tokens that are of use; None for any number.

        Raises:
            UsageError: a text cannot be told apart from a control token.
            TooManyTokensError: there are far more tokens than ``most``. The text was not encoded as a whole.
        """
        if most is not None and sum(map(len, texts)) > max(_LONG_TEXT * most, _PIECE):
            self._count(render(texts), most)
        strings = self._strings
        if more := {string for string in self._others if string in written}:
            strings = _Strings(strings.all | more)
        marks = _marks([*texts, also_in], strings)
        disarmed = [_disarm(text, marks, strings) for text in texts]
        if disarmed == list(texts):
            text = render(texts)
            encoding = self._plain.encode(text, add_special_tokens=False)
            if self._is_sound(encoding, text):
                return encoding.ids
            # A normalizer has produced a token's string. The second tokenizer matches before normalizing.
        else:
            text = render([DisarmedText(text, marks) for text in disarmed])
        encoding = self._second(marks, strings).encode(text, add_special_tokens=False)
        if not self._is_sound(encoding, text):
            raise UsageError(
                "a message holds text that the model's tokenizer cannot tell from a control token",
                hint=f"take {' or '.join(sorted(set(self._control.values()))[:3])} and the like out of the message",
            )
        return encoding.ids

    def _count(self, text: str, most: int) -> None:
        """Raise :class:`TooManyTokensError` if a text has far more than ``most`` tokens.

        Encoding a text takes 200 times its size in memory, and a second for each few hundred kilobytes.
        """
        count = 0
        for start in range(0, len(text), _PIECE):
            count += len(self._plain.encode(text[start : start + _PIECE], add_special_tokens=False).ids)
            if count > _MARGIN * most:
                raise TooManyTokensError

    def _is_sound(self, encoding: tokenizers.Encoding, text: str) -> bool:
        """Return whether every control token in ``encoding`` comes from its own string in ``text``."""
        for place, number in enumerate(encoding.ids):
            if number in self._control:
                start, end = encoding.token_to_chars(place) or (0, 0)
                # Tokens may include the whitespace around them.
                if text[start:end].strip() != self._control[number]:
                    return False
        return True

    def _second(self, marks: Marks, strings: _Strings) -> tokenizers.Tokenizer:
        """Return the tokenizer that matches control tokens before normalizing, and then removes the marks."""
        made = self._disarming  # read once: other threads may replace it
        if made is None or made[:2] != (marks, strings.all):
            state: dict[str, Any] = json.loads(self._plain.to_str())
            for token in state["added_tokens"]:
                token["normalized"] = token["normalized"] and token["content"] not in strings.all
            undo = [_replace(marks.separator, ""), *(_replace(new, old) for old, new in marks.stand_ins.items())]
            normalizer = state["normalizer"]
            state["normalizer"] = {"type": "Sequence", "normalizers": undo + ([normalizer] if normalizer else [])}
            made = self._disarming = marks, strings.all, tokenizers.Tokenizer.from_str(json.dumps(state))
        return made[2]


def _disarm(text: str, marks: Marks, strings: _Strings) -> str:
    """Split each token's string in ``text``, and its beginning at the end, which following text may complete."""
    cuts = {place + 1 for string in strings.long for place in _places(text, string)}
    end = len(text.rstrip())
    cuts.update(
        end - length + 1
        for length in range(1, min(strings.longest, end + 1))
        if text[end - length : end] in strings.beginnings
    )
    bounds = [0, *sorted(cuts), len(text)]
    text = marks.separator.join(text[start:end] for start, end in pairwise(bounds))
    for string, stand_in in marks.stand_ins.items():
        text = text.replace(string, stand_in)
    return text


def _marks(texts: Iterable[str], strings: _Strings) -> Marks:
    used = set().union(*texts)
    free = (chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in used)
    chosen = list(islice(free, 1 + len(strings.single)))
    if len(chosen) <= len(strings.single):
        raise UsageError("the messages use every private-use character there is", hint="leave some of them out")
    return Marks(chosen[0], dict(zip(strings.single, chosen[1:], strict=True)))


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _places(text: str, string: str) -> Iterator[int]:
    """Yield the positions of ``string`` in ``text``, including overlapping ones."""
    place = text.find(string)
    while place >= 0:
        yield place
        place = text.find(string, place + 1)
