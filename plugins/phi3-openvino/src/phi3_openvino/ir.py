"""An OpenVINO IR whose large constants are written out as they are made, and not kept until the graph is whole.

An IR is an ``.xml`` file with the graph and a ``.bin`` file with the constants' bytes, which the former refers to by
offset and size (https://docs.openvino.ai, "OpenVINO IR format"). OpenVINO's own writer wants all constants in memory,
or in files that are mapped into it, and copies them. Here a large constant goes straight to its place in the ``.bin``
file, an input of the same type and shape stands for it in the graph, and becomes the constant in the ``.xml``.
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
    """The element type, as the ``.xml`` file has it."""
    shape: tuple[int, ...]
    offset: int
    size: int


class Constants:
    """The ``.bin`` file of an IR while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.inputs: list[ov.op.Parameter] = []
        """What stands for constants in the graph."""
        self.places: dict[str, _Place] = {}

    def begin(self) -> int:
        """Fill up to where a constant may begin, and say where that is."""
        self.file.write(bytes(-self.file.tell() % _ALIGNMENT))
        return self.file.tell()

    def write(self, values: npt.NDArray[Any]) -> None:
        self.file.write(values.data if values.flags.c_contiguous else values.tobytes())

    def node(self, name: str, kind: ov.Type, shape: tuple[int, ...], offset: int) -> ov.Node:
        """What was written since ``offset``, as a node of the graph."""
        node = ops.parameter(list(shape), kind)
        node.set_friendly_name(name)
        self.inputs.append(node)
        self.places[name] = _Place(kind.get_type_name(), shape, offset, self.file.tell() - offset)
        return node

    def add(self, name: str, kind: ov.Type, shape: tuple[int, ...], values: npt.NDArray[Any]) -> ov.Node:
        """Write a constant that is whole already."""
        offset = self.begin()
        self.write(values)
        return self.node(name, kind, shape, offset)


def save(model: ov.Model, constants: Constants, path: Path) -> None:
    """Write the ``.xml`` file of a model that has the constants' stand-ins among its inputs."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="graph-") as folder:
        written = Path(folder, "graph.xml")
        ov.save_model(model, written, compress_to_fp16=False)
        base = constants.begin()
        with written.with_suffix(".bin").open("rb") as small:
            shutil.copyfileobj(small, constants.file)
        graph = ET.parse(written)  # noqa: S314 - OpenVINO has just written it
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
