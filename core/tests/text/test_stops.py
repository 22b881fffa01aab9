from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.errors import UsageError
from phi3_core.text.stops import StopStrings


def run(strings, pieces):
    """Feed pieces as a caller would; return what was shown for each, the rest, and whether a string was found."""
    stops = StopStrings(strings)
    shown = []
    for piece in pieces:
        text, found = stops.push(piece)
        shown.append(text)
        if found:
            return shown, "", True
    return shown, stops.finish(), stops.found


def test_nothing_to_stop_at():
    assert run([], ["a", "", "bc"]) == (["a", "", "bc"], "", False)


def test_stop_string_over_several_pieces():
    assert run(["###"], ["a#", "#", "#b"]) == (["a", "", ""], "", True)


def test_held_back_only_while_needed():
    assert run(["User:"], ["Hi U", "s", "ual", " U"]) == (["Hi ", "", "Usual", " "], "U", False)


def test_hold_moves_on_within_a_repetition():
    assert run(["aab"], ["aa", "a", "b"]) == (["", "a", ""], "", True)


def test_leftmost_of_several():
    assert run(["world", "lo"], ["hello world"]) == (["hel"], "", True)


@pytest.mark.parametrize(
    ("pieces", "text"), [(["x<b", "> y"], "x"), (["x<b", "z"], "x<"), (["x<b"], "x<"), (["x<b>"], "x")]
)
def test_longer_string_that_begins_earlier(pieces, text):
    shown, rest, found = run(["b", "<b>"], pieces)
    assert "".join(shown) + rest == text
    assert found


def test_nothing_after_the_end():
    stops = StopStrings(["."])
    assert stops.push("a.b") == ("a", True)
    assert stops.push("c") == ("", True)
    assert stops.finish() == ""
    assert stops.found


def test_empty_stop_string():
    with pytest.raises(UsageError, match="empty"):
        StopStrings(["a", ""])


@given(
    strings=st.lists(st.text("ab<", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("ab<", max_size=5), max_size=8),
)
def test_same_as_searching_the_whole_text(strings, pieces):
    whole = "".join(pieces)
    end = min((whole.find(string) for string in strings if string in whole), default=len(whole))
    shown, rest, found = run(strings, pieces)
    assert "".join(shown) + rest == whole[:end]
    assert found == (end < len(whole))
    if not found:
        for count in range(len(pieces)):
            assert len("".join(pieces[:count])) - len("".join(shown[:count])) < max(map(len, strings), default=1)
