"""What a folder may say to onnxruntime-genai, and what it may not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from phi3_core.errors import ModelError
from phi3_dml import configuration

# As published with Phi-3-mini-4k-instruct for DirectML, and as the builder writes it.
PUBLISHED = {
    "model": {
        "bos_token_id": 1,
        "context_length": 4096,
        "decoder": {
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": [{"dml": {}}]},
            "filename": "model.onnx",
            "head_size": 96,
            "hidden_size": 3072,
            "inputs": {
                "input_ids": "input_ids",
                "attention_mask": "attention_mask",
                "position_ids": "position_ids",
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
            "outputs": {
                "logits": "logits",
                "present_key_names": "present.%d.key",
                "present_value_names": "present.%d.value",
            },
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 32,
        },
        "eos_token_id": [32000, 32001, 32007],
        "pad_token_id": 32000,
        "type": "phi3",
        "vocab_size": 32064,
    },
    "search": {
        "diversity_penalty": 0.0,
        "do_sample": False,
        "early_stopping": True,
        "length_penalty": 1.0,
        "max_length": 4096,
        "min_length": 0,
        "no_repeat_ngram_size": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    },
}


@pytest.fixture
def folder(tmp_path):
    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "genai_config.json").write_text(text, encoding="utf-8")
        return tmp_path

    return write


def changed(place, value):
    content: Any = copy.deepcopy(PUBLISHED)
    *path, last = place.split(".")
    target = content
    for key in path:
        target = target[key]
    target[last] = value
    return content


def test_what_is_published_is_taken(folder):
    assert configuration.read(folder(PUBLISHED)) == PUBLISHED
    cuda = changed("model.decoder.session_options.provider_options", [{"cuda": {"enable_cuda_graph": "0"}}])
    assert configuration.read(folder(cuda)) == cuda
    captured = changed("model.decoder.session_options.provider_options", [{"dml": {"enable_graph_capture": "1"}}])
    assert configuration.read(folder(captured)) == captured, "as onnxruntime-genai 0.18's builder writes it"


# As onnxruntime-genai 0.18's builder writes it for Phi-3-mini-4k on CPUs.
WINDOW = {
    "window_size": 2047,
    "slide_key_value_cache": False,
    "slide_inputs": False,
    "layers": [],
    "cache_slack": 0,
}


def test_a_sliding_window_is_taken(folder):
    content = configuration.read(folder(changed("model.decoder.sliding_window", WINDOW)))
    assert configuration.sliding_window(content) == WINDOW
    none = configuration.read(folder(changed("model.decoder.sliding_window", {**WINDOW, "window_size": 0})))
    assert configuration.sliding_window(none) is configuration.sliding_window(PUBLISHED) is None


SESSION = "model.decoder.session_options"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (f"{SESSION}.custom_ops_library", "evil.dll", "custom_ops_library is not allowed"),
        ("model.decoder.filename", "../model.onnx", "filename must be the name of a file in the folder"),
        ("model.decoder.filename", "..\\model.onnx", "filename must be"),
        ("model.decoder.filename", "C:model.onnx", "filename must be"),
        ("model.decoder.filename", "//host/share/model.onnx", "filename must be"),
        ("model.decoder.filename", "", "filename must be"),
        ("model.decoder.filename", "x" * 300, "filename must be"),
        ("model.type", ["phi3"], "model.type must be phi3"),
        ("model.decoder.filename", 5, "filename must be"),
        ("model.decoder.pipeline", [], "pipeline is not allowed"),
        ("model.encoder", {}, "model.encoder is not allowed"),
        ("model.vision", {"filename": "x.onnx"}, "model.vision is not allowed"),
        ("model.type", "whisper", "model.type must be phi3"),
        ("model.context_length", 0, "context_length must be a positive integer"),
        ("model.context_length", True, "context_length must be a positive integer"),
        ("model.eos_token_id", [-1], "eos_token_id must be a token id"),
        ("model.decoder.inputs.input_ids", "%s%n", "input_ids must be a tensor's name"),
        (f"{SESSION}.provider_options", [{"dml": {"library": "x"}}], "dml.library is not allowed"),
        (f"{SESSION}.provider_options", [{"qnn": {"backend_path": "x.dll"}}], "names the provider 'qnn'"),
        (f"{SESSION}.provider_options", {"dml": {}}, "is not a list"),
        (f"{SESSION}.config_entries", {"session.x": "1"}, "config_entries is not allowed"),
        ("search.max_length", "many", "max_length must be a count"),
        ("search.temperature", float("inf"), "temperature must be a number"),
        ("engine", {}, "engine is not allowed"),
        ("model.decoder.sliding_window", {"window_size": 300}, "slide_inputs must be false"),
        ("model.decoder.sliding_window", {**WINDOW, "slide_key_value_cache": True}, "slide_key_value_cache must be"),
        ("model.decoder.sliding_window", {**WINDOW, "library": "x"}, "sliding_window.library is not allowed"),
        ("model.decoder.sliding_window", {**WINDOW, "layers": ["x"]}, "layers must be a list of layers"),
        ("model.decoder.sliding_window", 300, "sliding_window is not an object"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_refused(folder, place, value, message):
    with pytest.raises(ModelError, match="genai_config.json") as caught:
        configuration.read(folder(changed(place, value)))
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["", "[", "[]", "[" * 100_000, '{"model": {}}', '{"search": {}}', "\x00"])
def test_what_is_no_configuration_is_refused(folder, text):
    with pytest.raises(ModelError, match=r"genai_config\.json"):
        configuration.read(folder(text))


def test_a_byte_order_mark_is_said_to_be_too_much(folder):
    with pytest.raises(ModelError, match="BOM") as caught:
        configuration.read(folder("\ufeff" + json.dumps(PUBLISHED)))
    assert "without a byte-order mark" in caught.value.hint


def test_one_that_is_missing_or_huge(tmp_path, folder):
    with pytest.raises(ModelError, match="is missing"):
        configuration.read(tmp_path)
    with pytest.raises(ModelError, match="too large"):
        configuration.read(folder(" " * (2 << 20)))
