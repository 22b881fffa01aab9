"""The tensors that a Phi-3 model consists of, and the check that a checkpoint has these and no others.

What is checked is known from the headers of the files, so that it can be checked before the files are fetched.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import PurePath
from typing import Protocol, TypeVar

from phi3_core.errors import ModelError

from .architecture import Architecture
from .leftovers import check_quantized, missing
from .safetensors import STORED

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"


class TensorHeader(Protocol):
    """What a file's header tells about a tensor."""

    @property
    def file(self) -> PurePath:
        """The file, for messages."""

    @property
    def dtype(self) -> str:
        """The type, as in safetensors headers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""


T = TypeVar("T", bound=TensorHeader)


def _expected(architecture: Architecture, names: Container[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each tensor of a model.

    An output layer among ``names``, those of the tensors that there are, counts also if it may be tied.
    """
    hidden, inner = architecture.hidden, architecture.intermediate
    in_layer = {
        "input_layernorm": (hidden,),
        "self_attn.qkv_proj": (architecture.q_width + 2 * architecture.kv_width, hidden),
        "self_attn.o_proj": (hidden, architecture.q_width),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_up_proj": (2 * inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    yield EMBEDDING, (architecture.vocabulary, hidden)
    yield "model.norm.weight", (hidden,)
    for index in range(architecture.layers):
        yield from ((f"model.layers.{index}.{name}.weight", shape) for name, shape in in_layer.items())
    if not architecture.tied or HEAD in names:
        yield HEAD, (architecture.vocabulary, hidden)


def take_roles(folder: PurePath, tensors: Mapping[str, T], architecture: Architecture) -> dict[str, T]:
    """Return the tensors that the model consists of, by name.

    Args:
        folder: the checkpoint folder or repository, for messages.
        tensors: all its tensors, by name.
        architecture: the model's architecture.

    Raises:
        ModelError: a tensor is missing, or of another type or shape.
    """
    if architecture.tied and EMBEDDING not in tensors and HEAD in tensors:
        # safetensors.torch.save_model keeps one of two equal tensors: the first by name.
        tensors = {**tensors, EMBEDDING: tensors[HEAD]}
    taken: dict[str, T] = {}
    for name, shape in _expected(architecture, tensors):
        tensor = tensors.get(name)
        if tensor is None:
            raise missing(folder, name, tensors, architecture.layers)
        _check(folder, name, tensor, shape, tensors)
        taken[name] = tensor
    return taken


def _check(folder: PurePath, name: str, tensor: T, shape: tuple[int, ...], tensors: Mapping[str, T]) -> None:
    if tensor.dtype not in STORED:
        check_quantized(folder, tensors)
        raise ModelError(
            f"{tensor.file}: tensor {name} is {tensor.dtype}; only {', '.join(STORED)} are read, no quantized weights",
            hint="phi3 models list shows models whose original weights are on the hub",
        )
    if tensor.shape != shape:
        raise ModelError(
            f"{tensor.file}: tensor {name} is {list(tensor.shape)}, but config.json makes it {list(shape)}",
            hint="save the model again: model.save_pretrained(FOLDER)",
        )
