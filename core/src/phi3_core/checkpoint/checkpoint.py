"""A Phi-3 checkpoint: its architecture and its weights by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from phi3_core.errors import ModelError

from .architecture import Architecture, read_architecture
from .gguf import Gguf
from .gguf_parts import linked_file
from .gguf_weights import open_gguf
from .leftovers import check_leftovers
from .roles import EMBEDDING, HEAD, take_roles
from .safetensors import Weight, open_weights


@frozen(kw_only=True, eq=False)
class Layer:
    """The weights of one decoder layer; those of linear layers are ``[outputs, inputs]``."""

    input_norm: Weight
    qkv: Weight
    """Query, key and value projections stacked by rows, ``[q_width + 2 * kv_width, hidden]``."""
    output: Weight
    """``[hidden, q_width]``"""
    post_norm: Weight
    gate_up: Weight
    """Gate and up projections stacked by rows, ``[2 * intermediate, hidden]``."""
    down: Weight
    """``[hidden, intermediate]``"""

    @property
    def linear(self) -> tuple[Weight, Weight, Weight, Weight]:
        """The weights of the linear layers, in the order of the forward pass."""
        return self.qkv, self.output, self.gate_up, self.down


@frozen(kw_only=True, eq=False)
class Checkpoint:
    """A checkpoint folder in the layout of ``save_pretrained``, or one that stands for a GGUF file.

    Use :meth:`open` to open one.
    """

    path: Path
    architecture: Architecture
    embedding: Weight
    """``[vocabulary, hidden]``"""
    norm: Weight
    head: Weight
    """``[vocabulary, hidden]``; the same object as ``embedding`` if the two are tied.

    They are not, whatever ``config.json`` says, if the files have an output layer with other values than the embedding.
    """
    layers: tuple[Layer, ...] = field(repr=False)

    @classmethod
    def open(cls, path: Path | str) -> Checkpoint:
        """Map the weights of the checkpoint folder ``path`` into memory and check their names and shapes.

        Raises:
            ModelError: a file or a tensor is missing, damaged, or not of the shape that ``config.json`` implies, or a
                tensor has no place in the model.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ModelError(f"{folder} is not a folder", hint="give a folder with a Hugging Face checkpoint")
        shape = read_architecture(folder / "config.json")
        file = linked_file(folder)
        weights = open_weights(folder) if file is None else open_gguf(Gguf.open(file))
        roles = take_roles(folder, weights, shape)
        embedding = roles[EMBEDDING]
        head = roles.get(HEAD, embedding)
        if shape.tied and head is not embedding and head.equals(embedding):
            head = embedding
        check_leftovers(folder, (weight for name, weight in weights.items() if name not in roles), shape.layers)
        # A trained output layer takes precedence over config.json, which says what the base model had.
        return cls(
            path=folder,
            architecture=evolve(shape, tied=head is embedding),
            embedding=embedding,
            norm=roles["model.norm.weight"],
            head=head,
            layers=tuple(_layer(roles, f"model.layers.{index}") for index in range(shape.layers)),
        )

    @property
    def linear(self) -> Iterator[Weight]:
        """The weights of the decoder's linear layers in order, without the output layer."""
        return (weight for layer in self.layers for weight in layer.linear)

    @property
    def parameters(self) -> int:
        """Number of parameters in the embedding, the linear layers and the output layer; tied ones count once."""
        matrices = [self.embedding, *self.linear] if self.head is self.embedding else [self.embedding, self.head]
        if self.head is not self.embedding:
            matrices += self.linear
        return sum(weight.raw.size for weight in matrices)


def _layer(roles: Mapping[str, Weight], prefix: str) -> Layer:
    return Layer(
        input_norm=roles[f"{prefix}.input_layernorm.weight"],
        qkv=roles[f"{prefix}.self_attn.qkv_proj.weight"],
        output=roles[f"{prefix}.self_attn.o_proj.weight"],
        post_norm=roles[f"{prefix}.post_attention_layernorm.weight"],
        gate_up=roles[f"{prefix}.mlp.gate_up_proj.weight"],
        down=roles[f"{prefix}.mlp.down_proj.weight"],
    )
