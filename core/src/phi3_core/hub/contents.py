"""What a repository holds, judged by the names of its files: weights that can be loaded, or why there are none."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from phi3_core.checkpoint.contents import Unusable, is_adapter, unusable
from phi3_core.errors import NotOnHubError

WEIGHTS = ("*.safetensors", "*.onnx", "openvino_*.bin")
"""Weights in formats that are safe to load, apart from GGUF files, each of which is a model of its own."""
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_SHOWN = 8


def folder_of(name: str) -> str:
    """Return the folder of a file; empty for the root."""
    return name.rpartition("/")[0]


def base_name(name: str) -> str:
    """Return a file's name without its folder."""
    return name.rpartition("/")[2]


def _is(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(base_name(name).lower(), pattern) for pattern in patterns)


def is_weights(name: str) -> bool:
    """Return whether a file has weights of a model in a format that is safe to load."""
    return _is(name, WEIGHTS) and not is_adapter(base_name(name))


def is_gguf(name: str) -> bool:
    """Return whether a file's name is that of a GGUF file."""
    return name.lower().endswith(".gguf")


def weight_folders(names: Iterable[str]) -> list[str]:
    """Return the folders that have weights, sorted; empty for the root."""
    return sorted({folder_of(name) for name in names if is_weights(name)})


def gguf_files(names: Iterable[str]) -> list[str]:
    """Return the GGUF files with models, sorted; of one in several parts the first."""
    return sorted(name for name in names if is_gguf(name) and _part(name) in {None, 1} and not _is_no_model(name))


def _is_no_model(name: str) -> bool:
    """Return whether a GGUF file is a projector of images, or the importance matrix of a quantizer."""
    return "mmproj" in name.lower() or name.lower().endswith("imatrix.gguf")


def choices(names: Iterable[str]) -> list[str]:
    """Return the folders with weights and the GGUF files, each of which is a model."""
    names = list(names)
    return [*weight_folders(names), *gguf_files(names)]


def parts(name: str) -> list[str]:
    """Return the names of all parts of a file; its own if it has one part."""
    found = _PART.fullmatch(name)
    if found is None:
        return [name]
    return [f"{found[1]}-{number:05d}-of-{found[3]}{found[4]}" for number in range(1, int(found[3]) + 1)]


def _part(name: str) -> int | None:
    found = _PART.fullmatch(name)
    return int(found[2]) if found else None


def shown(names: Sequence[str]) -> str:
    """Return names for an error, at most eight of them."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def no_weights(where: str, names: Iterable[str], folder: str, *, prefix: str) -> NotOnHubError:
    """Return the error for a repository or folder without weights, which says what it holds instead.

    Args:
        where: the repository or folder, for the message.
        names: all its files, with their paths.
        folder: the folder that was looked in; empty for the root.
        prefix: what comes before a path below the root to name it, such as ``OWNER/NAME/``.
    """
    inner = [name for name in names if not folder or name.startswith(f"{folder}/")]
    if folders := weight_folders(inner):
        hint = f"name one of them: {prefix}{folders[0]}"
        return NotOnHubError(f"{where} has its weights in folders: {shown(folders)}", hint=hint)
    if files := gguf_files(inner):
        hint = f"name one of them: {prefix}{files[0]}"
        return NotOnHubError(f"{where} holds GGUF files: {shown(files)}", hint=hint)
    return NotOnHubError(f"{where} holds no weights in a form that is safe to load", hint="use another repository")


def unusable_in(repository: str, names: Iterable[str], folder: str) -> Unusable | None:
    """Return what a repository or a folder of it holds if no backend can load it, as :func:`unusable`."""
    prefix = f"{folder}/" if folder else ""
    return unusable(repository, (name.removeprefix(prefix) for name in names if name.startswith(prefix)))


def missing(
    names: Iterable[str], folder: str, indexes: Mapping[str, bytes], *, absent: Iterable[str] = ()
) -> list[str]:
    """Return the files that a model needs but a folder lacks, as far as the files that are there tell.

    Args:
        names: the files that exist, with their paths.
        folder: the model's folder; empty for the root.
        indexes: the content of the safetensors indexes, by the file's path.
        absent: files that are known to be part of the repository but do not exist here.
    """
    prefix = f"{folder}/" if folder else ""
    there = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    there = {name for name in there if "/" not in name}
    weights = sorted(name for name in there if is_weights(name))
    needed = {part for name in weights for part in parts(name)}
    for name in weights:
        if name.startswith("openvino_"):
            needed.add(f"{name[: -len('.bin')]}.xml")
    for name in sorted(there):
        if name.startswith("openvino_") and name.endswith(".xml"):
            needed.add(f"{name[: -len('.xml')]}.bin")
    if "model.safetensors" not in there:  # an index beside a whole file is left over
        for path, content in indexes.items():
            if folder_of(path) == folder:
                needed |= _shards(content)
    if any(name.endswith(".safetensors") for name in weights):
        needed.add("config.json")
    needed |= {base_name(name) for name in absent if folder_of(name) == folder and is_weights(name)}
    return sorted(prefix + name for name in needed - there)


def _shards(content: bytes) -> set[str]:
    try:
        return {str(name) for name in json.loads(content)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
