"""schemathesis: requests made from the server's own description get an answer that the description allows.

The cases are the same in each run.
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis")

CASES = 10
"""For each endpoint, allowed and not."""
# The description cannot say all that is asked of a request: its model has to be known, its schema has to be small.
LEFT_OUT = {"positive_data_acceptance"}
BOUNDS = settings(
    max_examples=CASES,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def operations(address, script):
    described = schemathesis.openapi.from_url(f"{address}/openapi.json")
    return [found.ok() for found in described.get_all_operations()]


def test_each_answer_is_one_that_the_description_allows(operations):
    schemathesis.checks.load_all_checks()
    checks = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    statuses = set()

    def check(case):
        statuses.add(case.call_and_validate(checks=checks, timeout=30).status_code)

    for operation in operations:
        for mode in schemathesis.GenerationMode:
            with contextlib.suppress(Unsatisfiable):  # without parameters, nothing can be wrong
                BOUNDS(given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert len(operations) > 5
    assert {200, 400, 404} <= statuses
