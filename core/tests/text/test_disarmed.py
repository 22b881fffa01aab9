"""Disarmed text does what the text itself does, and what is cut from it stays disarmed."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phi3_core.text.disarmed import DisarmedText, Marks, concat

MARKS = Marks("\ue000", {"☃": "\ue001"})
PARTS = ("</think>", "<think>", "<", ">", "th", " ", "\n", "a", "é", "☃", "Ab")
texts = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)
short = st.sampled_from([*PARTS, "<think", "hink>", "  "])


def disarm(text):
    for tag in ("</think>", "<think>"):
        text = text.replace(tag, tag[0] + MARKS.separator + tag[1:])
    return DisarmedText(text.replace("☃", "\ue001"), MARKS)


def undo(value):
    if isinstance(value, str):
        return MARKS.without(value)
    return type(value)(map(undo, value)) if isinstance(value, (list, tuple)) else value


CALLS = {
    "split": lambda text, part, n: text.split(part),
    "split a few": lambda text, part, n: text.split(part, n),
    "rsplit": lambda text, part, n: text.rsplit(part, n),
    "words": lambda text, part, n: text.split(),
    "a few words": lambda text, part, n: text.split(None, n),
    "last words": lambda text, part, n: text.rsplit(None, n),
    "lines": lambda text, part, n: text.splitlines(),
    "lines with ends": lambda text, part, n: text.splitlines(keepends=True),
    "partition": lambda text, part, n: text.partition(part),
    "rpartition": lambda text, part, n: text.rpartition(part),
    "strip": lambda text, part, n: text.strip(),
    "strip characters": lambda text, part, n: text.strip(part),
    "lstrip": lambda text, part, n: text.lstrip(part),
    "rstrip": lambda text, part, n: text.rstrip(part),
    "replace": lambda text, part, n: text.replace(part, "x"),
    "replace a few": lambda text, part, n: text.replace(part, "", n),
    "removeprefix": lambda text, part, n: text.removeprefix(part),
    "removesuffix": lambda text, part, n: text.removesuffix(part),
    "contains": lambda text, part, n: part in text,
    "find": lambda text, part, n: text.find(part, n),
    "rfind": lambda text, part, n: text.rfind(part),
    "count": lambda text, part, n: text.count(part),
    "startswith": lambda text, part, n: text.startswith(part),
    "endswith": lambda text, part, n: text.endswith(("no", part)),
    "isspace": lambda text, part, n: text.isspace(),
    "length": lambda text, part, n: len(text),
    "truth": lambda text, part, n: bool(text),
    "equal": lambda text, part, n: (text == part, part == text, text != part, text == text[:]),
    "less": lambda text, part, n: text < part,
    "hash": lambda text, part, n: hash(text) == hash(part),
    "slice": lambda text, part, n: text[n:],
    "slice from the end": lambda text, part, n: text[-n - 1 : -1],
    "reverse": lambda text, part, n: text[::-1],
    "character": lambda text, part, n: text[n] if len(text) > n else None,
    "characters": lambda text, part, n: list(text),
    "upper": lambda text, part, n: text.upper(),
    "lower": lambda text, part, n: text.lower(),
    "add": lambda text, part, n: part + text + part,
    "text": lambda text, part, n: str(text),
    "concat": lambda text, part, n: concat([part, text]),
    "chain": lambda text, part, n: text.split("</think>")[-1].lstrip("\n").removeprefix(part).upper(),
}


@pytest.mark.parametrize("call", CALLS)
@settings(max_examples=60)
@given(text=texts, part=short, count=st.integers(0, 4))
def test_a_method_does_what_it_does_to_the_text(call, text, part, count):
    assert undo(CALLS[call](disarm(text), part, count)) == CALLS[call](text, part, count)


@pytest.mark.parametrize("call", CALLS)
@settings(max_examples=60)
@given(text=texts, part=st.sampled_from(["a", " ", "\n"]), count=st.integers(0, 4))
def test_no_tag_gets_armed(call, text, part, count):
    found = CALLS[call](disarm(text), part, count)
    for value in found if isinstance(found, (list, tuple)) else [found]:
        if isinstance(value, str):
            assert not any(tag in str.__add__("", value) for tag in ("</think>", "<think>", "☃"))


def test_text_of_both_kinds_is_found_in_the_other():
    text, tag = disarm("a</think>b"), disarm("</think>")
    assert tag in text
    assert text.split(tag) == ["a", "b"]
    assert operator.eq(tag, "</think>")
    assert {tag: 1}["</think>"] == 1
    assert type(concat(["a", "b"])) is str
