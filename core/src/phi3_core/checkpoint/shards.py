"""Which safetensors files a checkpoint is read from: one whole file, or the shards that an index names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePath

from phi3_core.errors import ModelError

from .contents import INDEX, SINGLE
from .safetensors_header import parse_object

AGAIN = "fetch the file again"


def without_index(where: PurePath, name: str, *, hint: str = "fetch the whole checkpoint again") -> ModelError:
    """Return the error for weights that have neither the name of a whole file nor an index.

    Args:
        where: the folder or repository.
        name: the name of a file with weights.
        hint: what to do.
    """
    return ModelError(f"{where} has {name}, but neither {SINGLE} nor {INDEX}, which says what lies where", hint=hint)


def read_index(index: PurePath, content: bytes) -> Mapping[str, str]:
    """Return the name of the shard of each tensor, by the tensor's name.

    Args:
        index: the file, for the message.
        content: its content.

    Raises:
        ModelError: the index is damaged, or names a file outside its folder.
    """
    try:
        places = parse_object(content).get("weight_map")
    except ValueError as error:
        raise ModelError(f"{index} is damaged: {error}", hint=AGAIN) from error
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index} has no weight_map", hint=AGAIN)
    for shard in sorted(set(places.values())):
        if shard in {".", ".."} or any(letter in shard for letter in '/\\:"\0'):
            raise ModelError(f"{index} names a file outside its folder: {shard!r}")
    return places


def check_present(index: PurePath, places: Mapping[str, str], there: Collection[str], *, hint: str = AGAIN) -> None:
    """Check that every shard that an index names exists.

    Args:
        index: the index.
        places: its content, as :func:`read_index` returns it.
        there: the names of the files beside it.
        hint: what to do.

    Raises:
        ModelError: a shard is missing.
    """
    absent = sorted(set(places.values()).difference(there))
    if absent:
        more = f", and so are {len(absent) - 1} more" if absent[1:] else ""
        raise ModelError(f"{index.parent / absent[0]} is missing{more}, though {index.name} names it", hint=hint)


def check_placed(index: PurePath, places: Mapping[str, str], tensors: Collection[str]) -> None:
    """Raise :class:`ModelError` if the shards lack a tensor that the index names."""
    for name, shard in places.items():
        if name not in tensors:
            raise ModelError(f"{index.parent / shard} has no tensor {name}, though {index.name} says so", hint=AGAIN)
