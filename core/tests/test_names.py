"""Names that every system can store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core import names

FINE = ("sample", "phi-3.5-mini", "owner--name", "with space", "Modèle", "模型", "console", "nul-1", "com10", ".hidden")
REFUSED = {
    "": "empty",
    "..": "dots",
    " ": "empty",
    "sample.": "end of a name",
    "sample ": "end of a name",
    "C:sample": "no names with :",
    "D:x": "no names with :",
    "a/b": "no names with /",
    "a\\b": r"no names with \\",
    'say "hi"': 'no names with "',
    "what?*": r"no names with \*\?",
    "a<b>|": "no names with",
    "a\nb": "control characters",
    "a\0b": "control characters",
    "latin-\udce9": "not text",
    "nul": "devices",
    "CON": "devices",
    "aux.txt": "devices",
    "com1": "devices",
    "LPT³.x.y": "devices",
    "prn .txt": "devices",
    "CONIN$": "devices",
    "x" * 201: "longer than 200 bytes",
    "模" * 67: "longer than 200 bytes",
}


@pytest.mark.parametrize("name", FINE)
def test_names_that_every_system_can_store(name):
    assert names.problem(name) == ""
    assert names.storable(name) == name


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_some_system_refuses_or_changes(name):
    import re

    assert re.search(REFUSED[name], names.problem(name))


@given(st.text(st.characters(exclude_categories=()), max_size=90), st.integers(8, names.LONGEST))
def test_any_text_becomes_a_name_that_every_system_can_store(text, longest):
    name = names.storable(text, longest=longest)
    assert names.problem(name) == ""
    assert len(name.encode()) <= longest + 1
    assert names.storable(name, longest=longest + 1) == name


@pytest.mark.parametrize(("one", "other"), [("sample", "SAMPLE"), ("Modèle", "Mode\u0300le"), ("É", "e\u0301")])
def test_names_that_some_system_does_not_tell_apart_have_one_key(one, other):
    assert names.key(one) == names.key(other)


def test_other_names_have_keys_of_their_own():
    assert len({names.key(name) for name in FINE}) == len(FINE)
