"""The blocks of a KV cache: who uses them, and which are kept because a text may begin with them again."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable

Text = tuple[bytes, bool]
"""What a block is kept for: a digest of all tokens up to its end, and whether it was read as part of a prompt."""


def digest(before: bytes, ids: Iterable[int]) -> bytes:
    """Return the digest of a text that goes on with ``ids``.

    Args:
        before: the digest of what is before them; empty at the begin.
        ids: the tokens of a block.
    """
    return hashlib.blake2b(before + array("i", ids).tobytes(), digest_size=16).digest()


class Blocks:
    """Gives out blocks by their numbers, and shares those that are kept for a text.

    Args:
        numbers: of the blocks.
    """

    def __init__(self, numbers: range) -> None:
        self.count = len(numbers)
        self._empty = list(reversed(numbers))
        self._users: Counter[int] = Counter()
        self._kept: dict[Text, int] = {}
        self._texts: dict[int, Text] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        """Kept blocks without users, the one that was used longest ago first."""

    def take(self) -> int:
        """Return a block to write to: an empty one, or the one that has been kept longest without being used."""
        if self._empty:
            block = self._empty.pop()
        else:
            block, _ = self._idle.popitem(last=False)
            del self._kept[self._texts.pop(block)]
        self._users[block] = 1
        return block

    def find(self, text: Text) -> int | None:
        """Return the block that is kept for a text, which has one more user then; None if there is none."""
        block = self._kept.get(text)
        if block is not None:
            self._idle.pop(block, None)
            self._users[block] += 1
        return block

    def keep(self, block: int, text: Text) -> None:
        """Keep a full block, which is not written to any more, unless there is one for the same text."""
        if self._kept.setdefault(text, block) == block:
            self._texts[block] = text

    def release(self, blocks: Iterable[int]) -> None:
        """Take note that a sequence does not use its blocks any more. The last ones are needed again the least."""
        for block in reversed(list(blocks)):
            self._users[block] -= 1
            if self._users[block]:
                continue
            del self._users[block]
            if block in self._texts:
                self._idle[block] = None
            else:
                self._empty.append(block)

    @property
    def used(self) -> int:
        """The number of blocks that have a user."""
        return len(self._users)
