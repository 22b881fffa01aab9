"""Write ``genai_config.json``, and validate it before onnxruntime-genai reads it.

onnxruntime-genai loads native libraries that the file names as ``custom_ops_library``, opens graphs outside the folder,
and passes options to execution providers. A downloaded folder is untrusted data, so only settings known to be harmless
are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_core.backend import Checkpoint
from phi3_core.errors import ModelError

from . import rules
from .onnx import reader
from .rules import HINT, INPUTS, OUTPUTS, is_plain_name

NAME, MODEL, DATA = "genai_config.json", "model.onnx", "model.onnx.data"
_LARGEST = 1 << 20


def write(checkpoint: Checkpoint, folder: Path, *, positions: bool) -> None:
    """Write the configuration of a graph. Stop ids are set per request, not here.

    Args:
        checkpoint: the original weights.
        folder: the artifact.
        positions: whether the graph has an input ``position_ids``.
    """
    shape = checkpoint.architecture
    ids = _special_ids(checkpoint.path)
    content = {
        "model": {
            "bos_token_id": ids["bos_token_id"],
            "context_length": shape.context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL,
                "head_size": shape.head_size,
                "hidden_size": shape.hidden,
                "inputs": {**INPUTS, **({"position_ids": "position_ids"} if positions else {})},
                "outputs": dict(OUTPUTS),
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.layers,
                "num_key_value_heads": shape.key_value_heads,
            },
            "eos_token_id": ids["eos_token_id"],
            "pad_token_id": ids["pad_token_id"],
            "type": "phi3",
            "vocab_size": shape.vocabulary,
        },
        "search": {"do_sample": False, "max_length": shape.context, "past_present_share_buffer": True},
    }
    (folder / NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _special_ids(folder: Path) -> dict[str, Any]:
    """Return special token ids from ``generation_config.json``, else ``config.json``, else Phi-3's defaults."""
    said: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_bytes())
            said |= {key: found[key] for key in said if found.get(key) is not None}
    if said["pad_token_id"] is None:
        ends = said["eos_token_id"]
        said["pad_token_id"] = ends[0] if isinstance(ends, list) else ends
    return said


def read(folder: Path) -> dict[str, Any]:
    """Return the validated content of a folder's ``genai_config.json``.

    Raises:
        ModelError: the file is missing, is not JSON, or contains a setting that is not allowed.
    """
    path = folder / NAME
    try:
        if path.stat().st_size > _LARGEST:
            raise ModelError(f"{path} is too large for what it is")
        text = path.read_text(encoding="utf-8")  # as the runtime reads it, which knows no byte-order mark
        content = json.loads(text)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        hint = "save it as UTF-8 without a byte-order mark" if isinstance(error, ValueError) else None
        raise ModelError(f"{path} cannot be read: {error}", hint=hint) from error
    check(path, content)
    checked: dict[str, Any] = content
    return checked


def check(path: Path, content: Any) -> None:
    """Check that a configuration contains allowed settings only.

    Args:
        path: the file, for error messages.
        content: its content.

    Raises:
        ModelError: a setting is not allowed, or no graph is named.
    """
    rules.check(path, content)
    model = content.get("model")
    if not isinstance(model, dict) or "filename" not in model.get("decoder", {}):
        raise ModelError(f"{path} names no graph", hint=HINT)


def sliding_window(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the ``sliding_window`` of a validated configuration; None without one or with a window of 0."""
    found: Mapping[str, Any] = content["model"]["decoder"].get("sliding_window", {})
    return found if found.get("window_size", 0) > 0 else None


def check_files(folder: Path, content: Mapping[str, Any]) -> tuple[Path, reader.Content]:
    """Check the graph of a folder and the data files that it refers to.

    Args:
        folder: the artifact.
        content: the content of its ``genai_config.json``.

    Returns:
        The path of the graph and its content.

    Raises:
        ModelError: a file is missing, damaged, or outside the folder.
    """
    graph = folder / str(content["model"]["decoder"]["filename"])
    found = reader.read(graph)
    for name, end in found.external.items():
        if not is_plain_name(name):
            raise ModelError(f"{graph} refers to a file outside its folder: {name!r}", hint=HINT)
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file} is missing", hint="fetch it again")
        size = file.stat().st_size
        if size < end:
            raise ModelError(f"{file} is damaged: {size} bytes, where {graph.name} refers to {end}")
    return graph, found
