"""Memory and disk: what is too little for Phi-3-mini."""

from __future__ import annotations

import pytest
from phi3_core.doctor.resources import Resources, findings, read_resources

GB = 10**9


def resources(**changes):
    facts = {"memory_bytes": 16 * GB, "memory_available_bytes": 8 * GB, "memory_limit_bytes": None}
    rest = {"processors": 8, "usable_processors": 8, "store": "/x", "store_free_bytes": 100 * GB}
    return Resources(**{**facts, **rest, **changes})


@pytest.mark.parametrize(
    ("changes", "severity", "words", "remedy"),
    [
        ({"store_free_bytes": GB}, "warning", "1.0 GB are free on the store's disk", "phi3 models rm --unused 30"),
        ({"store_free_bytes": 5 * GB}, "info", "9.9 GB while they are quantized", "PHI3_HOME"),
        ({"store_problem": "read-only"}, "error", "read-only", "set PHI3_HOME to a folder that you may write to"),
        ({"store_problem": "it is full", "store_free_bytes": 0}, "error", "it is full", "free some space"),
        ({"memory_available_bytes": GB}, "warning", "1.0 GB of memory are available;", "close other programs"),
        (
            {"memory_available_bytes": GB, "memory_limit_bytes": 2 * GB},
            "warning",
            "1.0 GB of memory are available of the 2.0 GB that a control group allows",
            "docker run --memory 5g",
        ),
    ],
)
def test_what_is_missing(changes, severity, words, remedy):
    (found,) = findings(resources(**changes))
    assert found.severity == severity
    assert words in found.message
    assert remedy in found.remedy


def test_enough_is_no_finding():
    assert list(findings(resources())) == []
    assert list(findings(resources(store_free_bytes=None))) == []


def test_this_machine(home):
    found = read_resources()
    assert found.store == str(home)
    assert found.store_problem == ""
    assert 0 < found.memory_available_bytes <= found.memory_bytes
    assert 1 <= found.usable_processors <= found.processors
    assert not home.exists()  # looking makes nothing


def test_a_store_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PHI3_HOME", str(tmp_path / "file" / "store"))
    found = read_resources()
    assert "can be written to" in found.store_problem
    assert [each.severity for each in findings(found)] == ["error"]
