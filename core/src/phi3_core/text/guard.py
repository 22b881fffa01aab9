"""Encode messages so that their text never becomes a control token.

Tokenizers match the strings of their added tokens in the whole rendered conversation, including the messages. So these
strings are split in the messages by a separator, a private-use character that occurs nowhere else. They no longer
match, and the first normalizer of a second tokenizer removes the separator before the text is encoded as usual.

This does not cover a template that puts a message's content into the middle of a token's string. Phi-3's template puts
the role into such a place, but roles are a fixed list.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import Any

import tokenizers
from attrs import frozen

from phi3_core.errors import UsageError

_PRIVATE_USE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))


@frozen
class Marks:
    """Characters that do not occur in the text."""

    separator: str
    """Splits the strings of tokens."""
    stand_ins: dict[str, str]
    """The replacements of tokens of one character, which cannot be split."""


class Guard:
    """Encodes messages, with control tokens in their text disarmed.

    Args:
        plain: the model's tokenizer.
        stop_ids: ids that count as control tokens, besides special tokens.
    """

    def __init__(self, plain: tokenizers.Tokenizer, stop_ids: Collection[int]) -> None:
        self._plain = plain
        added = plain.get_added_tokens_decoder()
        # Runs of whitespace are often added tokens too, but not control tokens.
        strings = {token.content for token in added.values() if token.special or token.content.strip(" \t\r\n▁")}
        self._long = tuple(sorted(string for string in strings if len(string) > 1))
        self._single = tuple(sorted(string for string in strings if len(string) == 1))
        self._beginnings = {string[:length] for string in self._long for length in range(1, len(string))}
        self._longest = max(map(len, self._long), default=0)
        unknown = getattr(plain.model, "unk_token", None)
        # The token for unknown characters is not a control token.
        self._control = {
            number: token.content.strip()
            for number, token in added.items()
            if (token.special or number in stop_ids) and token.content != unknown
        }
        self._disarming: tuple[Marks, tokenizers.Tokenizer] | None = None

    def encode(self, texts: Sequence[str], render: Callable[[list[str]], str], *, also_in: str = "") -> list[int]:
        """Return the token ids of ``render(texts)``; only text that ``render`` adds can become control tokens.

        Args:
            texts: the contents of the messages.
            render: applies the chat template.
            also_in: text that ``render`` may add; it contains none of the characters used for disarming.

        Raises:
            UsageError: a text cannot be told apart from a control token.
        """
        marks = self._marks([*texts, also_in])
        disarmed = [self._disarm(text, marks) for text in texts]
        text = render(disarmed)
        if disarmed == list(texts):
            encoding = self._plain.encode(text, add_special_tokens=False)
            if self._is_sound(encoding, text):
                return encoding.ids
            # A normalizer has produced a token's string. The second tokenizer matches before normalizing.
        encoding = self._second(marks).encode(text, add_special_tokens=False)
        if not self._is_sound(encoding, text):
            raise UsageError(
                "a message holds text that the model's tokenizer cannot tell from a control token",
                hint=f"take {' or '.join(sorted(set(self._control.values()))[:3])} and the like out of the message",
            )
        return encoding.ids

    def _disarm(self, text: str, marks: Marks) -> str:
        """Split each token's string in ``text``, and its beginning at the end, which following text may complete."""
        cuts = {place + 1 for string in self._long for place in _places(text, string)}
        end = len(text.rstrip())
        cuts.update(
            end - length + 1
            for length in range(1, min(self._longest, end + 1))
            if text[end - length : end] in self._beginnings
        )
        bounds = [0, *sorted(cuts), len(text)]
        text = marks.separator.join(text[start:end] for start, end in pairwise(bounds))
        for string, stand_in in marks.stand_ins.items():
            text = text.replace(string, stand_in)
        return text

    def _is_sound(self, encoding: tokenizers.Encoding, text: str) -> bool:
        """Return whether every control token in ``encoding`` comes from its own string in ``text``."""
        for place, number in enumerate(encoding.ids):
            if number in self._control:
                start, end = encoding.token_to_chars(place) or (0, 0)
                # Tokens may include the whitespace around them.
                if text[start:end].strip() != self._control[number]:
                    return False
        return True

    def _marks(self, texts: Iterable[str]) -> Marks:
        used = set().union(*texts)
        free = (chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in used)
        chosen = list(islice(free, 1 + len(self._single)))
        if len(chosen) <= len(self._single):
            raise UsageError("the messages use every private-use character there is", hint="leave some of them out")
        return Marks(chosen[0], dict(zip(self._single, chosen[1:], strict=True)))

    def _second(self, marks: Marks) -> tokenizers.Tokenizer:
        """Return the tokenizer that matches tokens before normalizing, and then removes the marks."""
        made = self._disarming  # read once: other threads may replace it
        if made is None or made[0] != marks:
            state: dict[str, Any] = json.loads(self._plain.to_str())
            for token in state["added_tokens"]:
                token["normalized"] = False
            undo = [_replace(marks.separator, ""), *(_replace(new, old) for old, new in marks.stand_ins.items())]
            normalizer = state["normalizer"]
            state["normalizer"] = {"type": "Sequence", "normalizers": undo + ([normalizer] if normalizer else [])}
            made = self._disarming = marks, tokenizers.Tokenizer.from_str(json.dumps(state))
        return made[1]


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _places(text: str, string: str) -> Iterator[int]:
    """Yield the positions of ``string`` in ``text``, including overlapping ones."""
    place = text.find(string)
    while place >= 0:
        yield place
        place = text.find(string, place + 1)
