"""The DirectML flavour's wheel for Windows, looked into without running it: what the plugin uses is there."""

from __future__ import annotations

import zipfile

import pytest

pytestmark = pytest.mark.slow

WHEEL = "onnxruntime-genai-directml==0.13.1"


@pytest.fixture(scope="module")
def wheel(windows_wheel):
    return windows_wheel(WHEEL)


def test_every_attribute_is_in_the_windows_wheel(wheel, runtime_attributes):
    names = runtime_attributes
    assert {"Config", "Model", "Generator", "GeneratorParams", "append_tokens", "get_logits", "set_guidance"} <= names
    with zipfile.ZipFile(wheel) as archive:
        (module,) = [name for name in archive.namelist() if name.endswith(".pyd")]
        content = archive.read(module)
    # pybind11 keeps the names of what it defines as plain text, each ended by a zero.
    assert sorted(name for name in names if name.encode() + b"\0" not in content) == []


def test_the_search_options_and_the_device_are_in_the_windows_library(wheel):
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read("onnxruntime_genai/onnxruntime-genai.dll")
    options = ("do_sample", "max_length", "random_seed", "repetition_penalty", "temperature", "top_k", "top_p")
    words = (*options, "past_present_share_buffer", "pad_token_id", "device_index", "json_schema", "llama")
    # Short texts lie in the code itself, four or eight letters at a time; those of nine and more are whole.
    assert [word for word in words if len(word) > 15 and word.encode() not in content] == []
    assert b"Continuous decoding is not supported on the selected device type" in content
