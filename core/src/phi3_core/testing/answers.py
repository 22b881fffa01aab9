"""The greedy answer that most tests of ``generate`` start from, made once."""

from __future__ import annotations

from phi3_core.values import Offer

from . import models
from .subject import Subject

COUNT = 24
"""Ids of the prompt, and of the answer."""
PROMPT = models.random_ids(COUNT)


def answer(subject: Subject, offer: Offer, precision: str) -> list[int]:
    """Return the greedy answer to :data:`PROMPT`.

    Raises:
        AssertionError: it has another number of ids than were asked for.
    """

    def ask() -> list[int]:
        engine = subject.engine(models.PLAIN, offer, precision)
        for count in (1, 2, COUNT):
            found = engine.ask(PROMPT, count)
            assert len(found) == count, f"generate yielded {len(found)} ids, where {count} were asked for"
        return found

    return subject.once("answer", ask)


def repeated(subject: Subject, offer: Offer, precision: str) -> list[int]:
    """Return the same answer, generated again.

    Raises:
        AssertionError: it is another one.
    """
    expected = answer(subject, offer, precision)

    def ask() -> list[int]:
        engine = subject.engine(models.PLAIN, offer, precision)
        for _ in range(2):
            assert engine.ask(PROMPT, COUNT) == expected, "the same greedy request had another answer"
        assert engine.ask(PROMPT, COUNT, seed=5) == expected, "a seed changed a greedy answer"
        return expected

    return subject.once("repeated", ask)
