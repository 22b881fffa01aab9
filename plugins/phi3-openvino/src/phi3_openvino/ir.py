"""A writer of OpenVINO IRs that does not keep large constants in memory.

An IR consists of an ``.xml`` file with the graph and a ``.bin`` file with the data of the constants, to which the graph
refers by offset and size (https://docs.openvino.ai, "OpenVINO IR format"). OpenVINO's own writer needs all constants
in memory or in mapped files, and copies them. Here a large constant is written to the ``.bin`` file at once, an input
of the same type and shape is its placeholder in the graph, and the placeholder becomes the constant in the ``.xml``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree as ET

import numpy.typing as npt
import openvino as ov
from attrs import frozen
from openvino import opset13 as ops

_ALIGNMENT = 64


@frozen
class _Place:
    kind: str
    """The element type's name in the ``.xml`` file."""
    shape: tuple[int, ...]
    offset: int
    size: int


class Constants:
    """Writes the ``.bin`` file of an IR."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.inputs: list[ov.op.Parameter] = []
        """The placeholders of constants in the graph."""
        self.places: dict[str, _Place] = {}

    def begin(self) -> int:
        """Pad the file to the alignment of constants and return the offset of the next one in bytes."""
        self.file.write(bytes(-self.file.tell() % _ALIGNMENT))
        return self.file.tell()

    def write(self, values: npt.NDArray[Any]) -> None:
        """Append values to the file."""
        self.file.write(values.data if values.flags.c_contiguous else values.tobytes())

    def node(self, name: str, kind: ov.Type, shape: tuple[int, ...], offset: int) -> ov.Node:
        """Return a placeholder for the constant that was written since ``offset``.

        Args:
            name: the name of the constant.
            kind: its element type.
            shape: its shape.
            offset: its offset in the file, as returned by :meth:`begin`.
        """
        node = ops.parameter(list(shape), kind)
        node.set_friendly_name(name)
        self.inputs.append(node)
        self.places[name] = _Place(kind.get_type_name(), shape, offset, self.file.tell() - offset)
        return node

    def add(self, name: str, kind: ov.Type, shape: tuple[int, ...], values: npt.NDArray[Any]) -> ov.Node:
        """Write a constant and return its placeholder.

        Args:
            name: the name of the constant.
            kind: its element type.
            shape: its shape.
            values: its values, packed if they have 4 bits.
        """
        offset = self.begin()
        self.write(values)
        return self.node(name, kind, shape, offset)


def save(model: ov.Model, constants: Constants, path: Path) -> None:
    """Write the ``.xml`` file of a model and append its small constants to the ``.bin`` file.

    Args:
        model: the model, with placeholders among its inputs.
        constants: the constants written so far.
        path: the ``.xml`` file.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="graph-") as folder:
        written = Path(folder, "graph.xml")
        ov.save_model(model, written, compress_to_fp16=False)
        base = constants.begin()
        with written.with_suffix(".bin").open("rb") as small:
            shutil.copyfileobj(small, constants.file)
        graph = ET.parse(written)  # noqa: S314 - written by OpenVINO above
    for layer in graph.iterfind("layers/layer"):
        data = layer.find("data")
        place = constants.places.get(layer.get("name", ""))
        if data is not None and place and layer.get("type") == "Parameter":
            layer.set("type", "Const")
            data.attrib.clear()
            data.set("element_type", place.kind)
            data.set("shape", ", ".join(map(str, place.shape)))
            data.set("offset", str(place.offset))
            data.set("size", str(place.size))
        elif data is not None and layer.get("type") == "Const":
            data.set("offset", str(int(data.get("offset", "0")) + base))
    graph.write(path, encoding="utf-8", xml_declaration=True)
