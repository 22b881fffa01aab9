"""Tensors that the Phi-3 architecture has no place for, and those that it misses: what each kind of them is.

A tensor that is passed over changes what the model says. So each one is harmless or an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import PurePath
from typing import Protocol

from phi3_core.errors import ModelError

_COMPUTED = re.compile(r"(.+\.)?rotary_emb\.\w+")
"""Buffers of the rotary embedding that older checkpoints have; they follow from ``config.json``."""
_ADAPTER = re.compile(
    r"(^|\.)(base_model\.model|base_layer|lora_\w+|modules_to_save|ia3_l|vera_\w+|hada_\w+|lokr_\w+)\."
)
_QUANTIZED = re.compile(
    r".+(\.(qweight|qzeros|scales|g_idx|absmax|quant_map|nested_absmax|SCB|weight_scale(_inv)?|weight_packed|"
    r"weight_zero_point|input_scale|biases)|quant_state\.\S+|\.absmax|\.quant_map)"
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_SPLIT = re.compile(r".+\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.weight")
_PREFIXES = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "language_model.", "transformer.")
_MERGE = "merge the adapter before saving: model.merge_and_unload().save_pretrained(FOLDER)"
_SAVE = "save the model again: model.save_pretrained(FOLDER)"


class Leftover(Protocol):
    """A tensor without a place in the model."""

    @property
    def name(self) -> str:
        """Its name."""

    def is_zero(self) -> bool:
        """Return whether all its values are zero."""


def check_leftovers(folder: PurePath, leftovers: Iterable[Leftover], layers: int) -> None:
    """Check that tensors without a place in the model change nothing.

    Args:
        folder: the checkpoint folder.
        leftovers: the tensors that no layer uses.
        layers: the number of layers.

    Raises:
        ModelError: one of them would be part of the model. The message says what it is.
    """
    found = {weight.name: weight for weight in leftovers if not _COMPUTED.fullmatch(weight.name)}
    found = {name: weight for name, weight in found.items() if not (name.endswith(".bias") and weight.is_zero())}
    if not found:
        return
    check_adapter(folder, found)
    check_quantized(folder, found)
    numbers = [int(match[1]) for name in found if (match := _LAYER.match(name))]
    if numbers and max(numbers) >= layers:
        raise ModelError(
            f"{folder} has the tensors of {max(numbers) + 1} layers, but config.json says {layers}", hint=_SAVE
        )
    biases = [name for name in found if name.endswith(".bias")]
    if biases:
        raise ModelError(
            f"{folder} has biases that are not zero, and the Phi-3 family has none: {_listed(biases)}",
            hint="phi3 models list",
        )
    raise ModelError(f"{folder} has tensors that the Phi-3 family has no place for: {_listed(found)}", hint=_SAVE)


def missing(folder: PurePath, name: str, names: Collection[str], layers: int) -> ModelError:
    """Return the error for a tensor that a checkpoint lacks, with the reason if one shows.

    Args:
        folder: the checkpoint folder.
        name: the tensor's name.
        names: the names of the tensors in the checkpoint.
        layers: the number of layers.
    """
    check_adapter(folder, names)
    check_quantized(folder, names)
    for prefix in _PREFIXES:
        if f"{prefix}{name}" in names:
            return ModelError(f"{folder}: the names of the tensors begin with {prefix!r}", hint=_SAVE)
    if name.removeprefix("model.") in names:
        return ModelError(
            f"{folder} is a model without an output layer, such as an embedding model: its tensors' names lack "
            f"'model.'",
            hint="phi3 models list",
        )
    numbers = {int(match[1]) for each in names if (match := _LAYER.match(each))}
    layer = _LAYER.match(name)
    if layer and numbers and int(layer[1]) > max(numbers):
        return ModelError(
            f"{folder} has no tensor {name}: it has {max(numbers) + 1} layers, but config.json says {layers}",
            hint="fetch the checkpoint again",
        )
    if name == "lm_head.weight" and any(each.startswith(("score.", "classifier.")) for each in names):
        return ModelError(f"{folder} classifies text and writes none: it has no {name}", hint="phi3 models list")
    split = sorted(each for each in names if _SPLIT.fullmatch(each))
    if split:
        return ModelError(
            f"{folder} has no tensor {name}, but separate ones such as {split[0]}: not the layout of Phi-3",
            hint="phi3 models list",
        )
    return ModelError(f"{folder} has no tensor {name}", hint="fetch the checkpoint again")


def check_adapter(folder: PurePath | str, names: Collection[str]) -> None:
    """Raise :class:`ModelError` if tensors have the names that PEFT gives them before an adapter is merged."""
    found = [name for name in names if _ADAPTER.search(name)]
    if found:
        raise ModelError(f"{folder} has a LoRA or similar adapter that is not merged: {_listed(found)}", hint=_MERGE)


def check_quantized(folder: PurePath | str, names: Collection[str]) -> None:
    """Raise :class:`ModelError` if tensors have the names that belong to quantized weights."""
    found = [name for name in names if _QUANTIZED.fullmatch(name)]
    if found:
        raise ModelError(
            f"{folder} has weights that are quantized already, of which only original ones are read: {_listed(found)}",
            hint="phi3 models list shows models whose original weights are on the hub",
        )


def _listed(names: Iterable[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
