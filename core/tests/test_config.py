"""Time limits come from the environment, and nonsense there is an error, not a default."""

from __future__ import annotations

import pytest
from phi3_core.config import TIME_LIMITS_S, time_limit
from phi3_core.errors import UsageError


@pytest.mark.parametrize("name", TIME_LIMITS_S)
def test_a_limit_can_be_set(monkeypatch, name):
    monkeypatch.delenv(f"PHI3_{name.upper()}_LIMIT", raising=False)
    assert time_limit(name) == TIME_LIMITS_S[name]
    monkeypatch.setenv(f"PHI3_{name.upper()}_LIMIT", "2.5")
    assert time_limit(name) == 2.5


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "1,5"])
def test_nonsense_is_named(monkeypatch, text):
    monkeypatch.setenv("PHI3_LOAD_LIMIT", text)
    with pytest.raises(UsageError, match=f"PHI3_LOAD_LIMIT is '{text}', not a number of seconds") as caught:
        time_limit("load")
    assert caught.value.hint == "unset PHI3_LOAD_LIMIT"
