"""The DirectML flavour's wheel for Windows, looked into without running it: what the plugin uses is there."""

from __future__ import annotations

import ast
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.runs]

WHEEL = "onnxruntime-genai-directml==0.13.1"
ENGINE = Path(__file__).parent.parent / "src" / "phi3_dml" / "engine.py"
# Our own names for what onnxruntime-genai makes.
OBJECTS = {"generator", "settings", "config", "_generator"}


def used():
    """Attributes of the module, and of the objects that come from it, that the engine names."""
    names = set()
    for node in ast.walk(ast.parse(ENGINE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name == "og" or name in OBJECTS:
                names.add(node.attr)
    return names


@pytest.fixture(scope="module")
def wheel(windows_wheel):
    return windows_wheel(WHEEL)


def test_every_attribute_is_in_the_windows_wheel(wheel):
    names = used()
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
