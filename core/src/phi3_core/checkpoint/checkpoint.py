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
from .leftovers import check_leftovers, check_quantized, missing
from .safetensors import STORED, Weight, open_weights

_HEAD = "lm_head.weight"


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
        found = _Roles(folder, weights, shape.layers)
        embedding = found.take("model.embed_tokens.weight", shape.vocabulary, shape.hidden)
        norm = found.take("model.norm.weight", shape.hidden)
        layers = tuple(_layer(found, f"model.layers.{index}", shape) for index in range(shape.layers))
        head = embedding
        if not shape.tied or _HEAD in found.weights:
            head = found.take(_HEAD, shape.vocabulary, shape.hidden)
            if shape.tied and head.equals(embedding):
                head = embedding
        check_leftovers(folder, found.left(), shape.layers)
        # A trained output layer takes precedence over config.json, which says what the base model had.
        return cls(
            path=folder,
            architecture=evolve(shape, tied=head is embedding),
            embedding=embedding,
            norm=norm,
            head=head,
            layers=layers,
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


class _Roles:
    """Looks up weights by name and checks their type and shape."""

    def __init__(self, folder: Path, weights: Mapping[str, Weight], layers: int) -> None:
        self.folder = folder
        self.weights = weights
        self.layers = layers
        self._taken: set[str] = set()

    def take(self, name: str, *shape: int) -> Weight:
        weight = self.weights.get(name)
        if weight is None:
            raise missing(self.folder, name, self.weights, self.layers)
        if weight.dtype not in STORED:
            check_quantized(self.folder, self.weights)
            raise ModelError(
                f"{weight.file}: tensor {name} is {weight.dtype}; only {', '.join(STORED)} are read, no quantized "
                f"weights",
                hint="phi3 models list shows models whose original weights are on the hub",
            )
        if weight.shape != shape:
            raise ModelError(
                f"{weight.file}: tensor {name} is {list(weight.shape)}, but config.json makes it {list(shape)}",
                hint="save the model again: model.save_pretrained(FOLDER)",
            )
        self._taken.add(name)
        return weight

    def left(self) -> Iterator[Weight]:
        """Yield the weights that were not taken."""
        return (weight for name, weight in self.weights.items() if name not in self._taken)


def _layer(found: _Roles, prefix: str, shape: Architecture) -> Layer:
    return Layer(
        input_norm=found.take(f"{prefix}.input_layernorm.weight", shape.hidden),
        qkv=found.take(f"{prefix}.self_attn.qkv_proj.weight", shape.q_width + 2 * shape.kv_width, shape.hidden),
        output=found.take(f"{prefix}.self_attn.o_proj.weight", shape.hidden, shape.q_width),
        post_norm=found.take(f"{prefix}.post_attention_layernorm.weight", shape.hidden),
        gate_up=found.take(f"{prefix}.mlp.gate_up_proj.weight", 2 * shape.intermediate, shape.hidden),
        down=found.take(f"{prefix}.mlp.down_proj.weight", shape.hidden, shape.intermediate),
    )
