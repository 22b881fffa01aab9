"""The sample model on OpenVINO, obtained once for all tests."""

from __future__ import annotations

import phi3_core as phi3
import pytest


@pytest.fixture(scope="session")
def backend_name():
    """Whose artifacts the sample's store keeps."""
    return "openvino"


@pytest.fixture(scope="module")
def model(sample_home):
    """The sample model, loaded for a conversation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHI3_HOME", str(sample_home))
        with phi3.load("sample", device="openvino:CPU") as loaded:
            yield loaded
