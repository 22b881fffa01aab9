"""The sample model on the library's CPU fallback, made once for all tests."""

from __future__ import annotations

import os

import phi3_core as phi3
import pytest
from phi3_npu import requirements


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
def backend_name(library):
    """Whose artifacts the sample's store keeps."""
    return "npu"


@pytest.fixture(scope="module")
def model(sample_home):
    """The sample model at half precision, loaded for a conversation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="npu:CPU", precision="fp16") as loaded:
            yield loaded
