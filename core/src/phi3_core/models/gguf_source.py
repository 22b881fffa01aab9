"""GGUF files as original weights: a folder in the store stands for the file, with configuration and tokenizer."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve

from phi3_core.checkpoint import gguf_parts
from phi3_core.checkpoint.gguf import Gguf, GgufDescription, write_json
from phi3_core.checkpoint.gguf_layout import read_layout
from phi3_core.checkpoint.gguf_tokenizer import has_template, write_tokenizer
from phi3_core.errors import ModelError
from phi3_core.paths import read_json
from phi3_core.store import manifest
from phi3_core.store.store import Store
from phi3_core.values import Artifact, Recipe, Source

from .ref import fingerprint
from .request import ResolvedModel

_TEMPLATE = "chat_template.jinja"
_FORM = "core-checkpoint-1"
"""The name of the folder; the number changes when it is made in another way."""
_PLAIN = {"F32", "F16", "BF16"}
_HELD = {"int4": "Q4_0", "int8": "Q8_0"}
"""The type whose integers and scales are those of symmetric groups of 32, by precision."""


def find(path: Path) -> Path | None:
    """Return the GGUF file that a path names: the file itself, or the only one in a folder. None if there is none.

    Raises:
        ModelError: the folder has several.
    """
    if path.is_dir():
        return gguf_parts.only_model_in(path)
    return path if gguf_parts.is_gguf(path) else None


def describe(file: Path) -> GgufDescription:
    """Return the description of the model in a GGUF file.

    Raises:
        ModelError: the file is damaged, incomplete, or not of the Phi-3 family.
    """
    gguf = Gguf.open(file)
    read_layout(gguf)
    return gguf.describe()


def as_source(file: Path, source: Source, store: Store) -> Source:
    """Return the original weights that a GGUF file holds.

    The folder is small, and made once: the weights are read from the file.

    Args:
        file: the file, or a part of it.
        source: the model's name and revision.
        store: the store to write the folder to.

    Raises:
        ModelError: the file is damaged, incomplete, or not of the Phi-3 family.
        StoreError: the store cannot be written.
    """

    def fill(folder: Path) -> Mapping[str, Any]:
        gguf = Gguf.open(file)
        layout, description = read_layout(gguf), gguf.describe()
        write_tokenizer(gguf, folder)
        if description.chat_template is None:
            _copy_template(file, folder)
        write_json(folder / "config.json", layout.config)
        kinds = [kind for kind in description.tensor_types if kind not in _PLAIN]
        asks = has_template(gguf) or (folder / _TEMPLATE).is_file()
        content = {"file": str(file), "precision": description.precision, "types": kinds, "has_template": asks}
        # In ASCII, because the file's name need not be UTF-8.
        (folder / gguf_parts.LINK).write_text(json.dumps(content, indent=2), encoding="ascii")
        return {"context_length": description.context_length}

    beside = file.parent / _TEMPLATE
    state = f"{fingerprint(file)} {beside.stat().st_mtime_ns if beside.is_file() else 0}"
    folder = store.derive(hashlib.sha256(state.encode()).hexdigest(), _FORM, fill)
    return evolve(source, path=folder)


def facts(folder: Path) -> Mapping[str, Any]:
    """Return what is recorded about the GGUF file that a folder stands for; empty for other folders."""
    content = read_json(folder / gguf_parts.LINK)
    return content if isinstance(content, dict) else {}


def recorded(folder: Path) -> Mapping[str, Any]:
    """Return what a manifest records about weights that were quantized already: the types of the GGUF file."""
    kinds = facts(folder).get("types")
    return {"gguf_types": kinds} if kinds else {}


def check_template(folder: Path) -> None:
    """Check that the model of a GGUF file can be asked, before work that takes long.

    Raises:
        ModelError: the file has no chat template.
    """
    said = facts(folder)
    if said.get("has_template") is False:
        file = Path(said["file"])
        raise ModelError(
            f"{file} has no chat template, as base models have none: it can be quantized and not be asked",
            hint=f"put the template of its model into {file.parent / _TEMPLATE}",
        )


def in_place(file: Path, source: Source, backend: str, precision: str) -> ResolvedModel:
    """Return a GGUF file that a backend loads as it is, with the tokenizer of the folder that stands for it."""
    said = manifest.read(source.path) or {}
    content = {"digest": fingerprint(file), "context_length": said.get("context_length")}
    artifact = Artifact(path=file, backend=backend, precision=precision, manifest=content)
    return ResolvedModel(artifact=artifact, tokenizer_dir=source.path, origin=f"from {file}")


def default_recipe(folder: Path, precisions: Sequence[str]) -> Recipe:
    """Return the recipe that suits a GGUF file: the precision nearest to that of its weights, if it is allowed.

    Args:
        folder: the folder that stands for the file.
        precisions: the allowed precisions, the preferred one first.
    """
    said = facts(folder)
    own = str(said.get("precision"))
    return Recipe(precision=own if own in precisions and said.get("types") else precisions[0])


def describe_rounding(folder: Path, recipe: Recipe) -> str:
    """Return a sentence on what quantizing does to the weights of a GGUF file."""
    said = facts(folder)
    name, kinds = Path(said["file"]).name, said.get("types")
    if not kinds or recipe.precision == "fp16":
        return f"{name} is read as original weights"
    known = f"{name} is quantized already ({', '.join(kinds)})"
    if _HELD.get(recipe.precision) in kinds:
        return f"{known}: {_HELD[recipe.precision]} is kept where the engine holds it, the rest is rounded again"
    return f"{known} and is rounded again, to {recipe.precision}"


def _copy_template(file: Path, folder: Path) -> None:
    beside = file.parent / _TEMPLATE
    if beside.is_file():
        shutil.copyfile(beside, folder / _TEMPLATE)
