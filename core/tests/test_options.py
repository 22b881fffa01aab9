"""Options of engines that are not known are refused, with the one that may have been meant."""

from __future__ import annotations

import pytest
from phi3_core.errors import UsageError
from phi3_core.options import check_options

KNOWN = ("num_threads", "PERFORMANCE_HINT")


def test_known_options_pass():
    check_options("acme", {"num_threads": "2", "PERFORMANCE_HINT": "LATENCY"}, KNOWN)
    check_options("acme", {}, ())


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("num_thread", KNOWN, "did you mean num_threads?"),
        ("NUM_THREADS", KNOWN, "did you mean num_threads?"),
        ("performance_hint", KNOWN, "did you mean PERFORMANCE_HINT?"),
        ("xyz", KNOWN, "there is PERFORMANCE_HINT, num_threads"),
        ("xyz", (), "leave --option out"),
        ("", KNOWN, "there is PERFORMANCE_HINT, num_threads"),
    ],
)
def test_unknown_ones_are_refused_with_what_there_is(name, known, hint):
    with pytest.raises(UsageError, match=f"acme has no option {name}") as caught:
        check_options("acme", {"num_threads": "2", name: "1"} if known else {name: "1"}, known)
    assert caught.value.hint == hint
