"""A text that every trained model of the family continues: one that it has read just before."""

from __future__ import annotations

from collections.abc import Sequence

PASSAGE = """\
The night train to Trondheim left platform eleven at 22:47 with nine passengers in the second carriage. Mrs. Okafor
carried a violin, two jars of plum jam and a map of the harbour that nobody had corrected since 1962. Across from her,
a retired diver named Tobias Lindqvist was counting copper coins into a blue tin. "Forty-three," he said, "and not one
of them from before the war." She offered him a spoonful of jam. Somewhere after Hamar the heating failed, so the
conductor, a tall woman with a grey parrot on her shoulder, brought blankets and black coffee for everyone. By morning
the parrot could whistle a slow movement by Telemann, the tin was empty, and the map had been folded into a paper boat.
"""
"""Nothing in it can be guessed, and it is shorter than the sliding windows of Phi-3 (2,047 tokens)."""


def question(ids: Sequence[int], length: int, steps: int) -> tuple[list[int], list[int]]:
    """Return a prompt that repeats a text, and the ids that continue it.

    Args:
        ids: the text.
        length: the length of the prompt.
        steps: the number of ids that continue it.
    """
    repeated = [ids[place % len(ids)] for place in range(length + steps)]
    return repeated[:length], repeated[length:]
