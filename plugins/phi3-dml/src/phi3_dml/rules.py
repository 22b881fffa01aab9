"""The settings of ``genai_config.json`` that are known to be harmless, as rules for its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_core.errors import ModelError

HINT = "use another model, or ask whoever made it"
INPUTS = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
OUTPUTS = {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}


def is_plain_name(name: str) -> bool:
    """Return whether a name is that of a file directly in the folder on every system."""
    return 0 < len(name) < 256 and name not in {".", ".."} and not any(letter in name for letter in '/\\:\0"<>|?*')


Rule = Callable[[Path, str, Any], None]
"""Raises for the value at a place of a file if it is not allowed."""


def _object(rules: Mapping[str, Rule]) -> Rule:
    def check_object(path: Path, place: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ModelError(f"{path}: {place or 'the whole'} is not an object", hint=HINT)
        for key, item in value.items():
            inner = f"{place}.{key}" if place else key
            if key not in rules:
                raise ModelError(f"{path}: {inner} is not allowed", hint=HINT)
            rules[key](path, inner, item)

    return check_object


def _fits(what: str, test: Callable[[Any], bool]) -> Rule:
    def check_value(path: Path, place: str, value: Any) -> None:
        if not test(value):
            shown = repr(value) if len(repr(value)) < 60 else "something else"
            raise ModelError(f"{path}: {place} must be {what}, not {shown}", hint=HINT)

    return check_value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _is_ids(value: Any) -> bool:
    return _is_count(value) or (isinstance(value, list) and bool(value) and all(map(_is_count, value)))


def _is_name_pattern(value: Any) -> bool:
    """Return whether a value is a tensor's name with at most one placeholder for a layer's index."""
    return (
        isinstance(value, str)
        and len(value) < 200
        and value.isprintable()
        and value.replace("%d", "", 1).count("%") == 0
    )


_NUMBER, _COUNT, _TRUTH = (
    _fits("a number", _is_number),
    _fits("a count", _is_count),
    _fits("true or false", lambda v: isinstance(v, bool)),
)
_POSITIVE = _fits("a positive integer", lambda value: _is_count(value) and value > 0)
_IDS = _fits("a token id, or several", _is_ids)
_TENSOR = _fits("a tensor's name", _is_name_pattern)
_FILE = _fits("the name of a file in the folder", lambda value: isinstance(value, str) and is_plain_name(value))
_WORD = _fits(
    "a plain word",
    lambda value: isinstance(value, str) and len(value) < 60 and value.replace("-", "").replace("_", "").isalnum(),
)
_PROVIDER_OPTIONS = {
    "cpu": frozenset[str](),
    "dml": frozenset({"enable_graph_capture"}),
    "cuda": frozenset({"enable_cuda_graph", "enable_skip_layer_norm_strict_mode"}),
    "webgpu": frozenset({"enableGraphCapture", "validationMode"}),
}
"""Execution providers in published folders, and their options that select no file, library or device."""


def _providers(path: Path, place: str, value: Any) -> None:
    """Check a list of objects with providers and their options. The engine overrides the choice of provider."""
    if not isinstance(value, list):
        raise ModelError(f"{path}: {place} is not a list", hint=HINT)
    for item in value:
        if not isinstance(item, dict):
            raise ModelError(f"{path}: {place} holds something that is not an object", hint=HINT)
        for provider, options in item.items():
            known = _PROVIDER_OPTIONS.get(provider.casefold())
            if known is None:
                raise ModelError(f"{path}: {place} names the provider {provider!r}, which is not allowed", hint=HINT)
            _object(dict.fromkeys(known, _WORD))(path, f"{place}.{provider}", options)


def _sliding_window(path: Path, place: str, value: Any) -> None:
    """Check the window that newer builders write. Windows of inputs, the default, are for graphs of a fixed size."""
    rules: dict[str, Rule] = {
        **dict.fromkeys(("window_size", "cache_slack", "pad_value"), _COUNT),
        **dict.fromkeys(("slide_inputs", "slide_key_value_cache"), _fits("false", lambda item: item is False)),
        "alignment": _WORD,
        "layers": _fits("a list of layers", lambda item: isinstance(item, list) and all(map(_is_count, item))),
    }
    _object(rules)(path, place, value)
    for key in ("slide_inputs", "slide_key_value_cache"):
        rules[key](path, f"{place}.{key}", value.get(key, True))


_SESSION = _object(
    {
        "log_id": _WORD,
        "provider_options": _providers,
        "intra_op_num_threads": _COUNT,
        "inter_op_num_threads": _COUNT,
        "log_severity_level": _COUNT,
        "enable_cpu_mem_arena": _TRUTH,
        "enable_mem_pattern": _TRUTH,
        "graph_optimization_level": _WORD,
    }
)
_TOP: Mapping[str, Rule] = {
    "model": _object(
        {
            "type": _fits(
                "phi3 or another decoder of its form", lambda value: value in ("phi3", "phi", "llama", "mistral")
            ),
            "bos_token_id": _IDS,
            "eos_token_id": _IDS,
            "pad_token_id": _IDS,
            "context_length": _POSITIVE,
            "vocab_size": _POSITIVE,
            "decoder": _object(
                {
                    "session_options": _SESSION,
                    "filename": _FILE,
                    "head_size": _POSITIVE,
                    "hidden_size": _POSITIVE,
                    "num_attention_heads": _POSITIVE,
                    "num_hidden_layers": _POSITIVE,
                    "num_key_value_heads": _POSITIVE,
                    "sliding_window": _sliding_window,
                    "inputs": _object(dict.fromkeys((*INPUTS, "position_ids"), _TENSOR)),
                    "outputs": _object(dict.fromkeys(OUTPUTS, _TENSOR)),
                }
            ),
        }
    ),
    "search": _object(
        {
            **dict.fromkeys(
                ("diversity_penalty", "length_penalty", "repetition_penalty", "temperature", "top_p"), _NUMBER
            ),
            **dict.fromkeys(
                (
                    *("max_length", "min_length", "no_repeat_ngram_size", "num_beams"),
                    *("num_return_sequences", "top_k"),
                ),
                _COUNT,
            ),
            **dict.fromkeys(("do_sample", "early_stopping", "past_present_share_buffer"), _TRUTH),
        }
    ),
}


def check(path: Path, content: Any) -> None:
    """Raise :class:`ModelError` if the content of a file has a setting that is not known to be harmless."""
    _object(_TOP)(path, "", content)
