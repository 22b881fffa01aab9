"""The kit on backends in numpy: a good one passes, and each fault fails the tests that name it."""

from __future__ import annotations

THREE_LINES = """
from phi3_core.testing import BackendContract

class TestGood(BackendContract):
    backend = "good"
"""


def test_a_good_backend_passes(run_kit):
    found = run_kit({"good": ""}, THREE_LINES)
    assert found.code == 0, found.output[-3000:]
    assert {each.outcome for each in found.outcomes} == {"passed"}
    assert len(found.outcomes) > 100
