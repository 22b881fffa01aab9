"""The long form of a LongRoPE model's graph, in which all positions use the long factors.

The original graph selects the factors by the last position of each pass, as transformers does. This is correct for a
prompt that is processed in one pass. However, cached keys that were rotated by the short factors are wrong in a longer
sequence, and the paged backend processes prompts in chunks, the first of which would use the short factors. Sequences
beyond the original context therefore have a separate graph, which differs in one edge of its ``.xml`` file; both
refer to the same ``.bin`` file.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from . import weights
from .derived import publish

CHOICE = "longrope/factors"
"""Name of the node that selects the factors.

A Select of condition, short factors and long factors; the condition is that all positions fit the original context.
Artifacts of earlier versions have the reverse condition, and the two lists in the other order.
"""


def chooses(xml: Path) -> bool:
    """Return whether an IR was written by this backend and selects between two lists of factors."""
    return f'name="{CHOICE}"' in xml.read_text(encoding="utf-8")


def make_long(xml: Path, folder: Path) -> None:
    """Write the long form of a graph into ``folder`` unless it exists; its constants are links to the originals.

    Args:
        xml: the ``.xml`` file of the original graph.
        folder: the folder to write to.
    """
    changed = folder / weights.IR
    if changed.is_file():
        return
    graph = ET.parse(xml)  # noqa: S314 - OpenVINO has parsed this file already
    (choice,) = (layer.get("id") for layer in graph.iterfind("layers/layer") if layer.get("name") == CHOICE)
    edges = {edge.get("to-port"): edge for edge in graph.iterfind("edges/edge") if edge.get("to-layer") == choice}
    condition = edges["0"].get("from-layer")
    (kind,) = (layer.get("type") for layer in graph.iterfind("layers/layer") if layer.get("id") == condition)
    short_factors, long_factors = ("1", "2") if kind == "LessEqual" else ("2", "1")
    for end in ("from-layer", "from-port"):
        edges[short_factors].set(end, edges[long_factors].get(end, ""))
    binary = xml.with_suffix(".bin")
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        staging = Path(scratch)
        _share(binary, staging / binary.name)
        shutil.copyfile(xml.with_name("config.json"), staging / "config.json")
        graph.write(staging / weights.IR, encoding="utf-8", xml_declaration=True)
        publish(staging, folder, (binary.name, "config.json", weights.IR))


def _share(file: Path, other: Path) -> None:
    """Link a file to another name, or copy it where links are not supported or the volumes differ."""
    for way in (other.hardlink_to, other.symlink_to):
        with contextlib.suppress(OSError, NotImplementedError):
            way(file.resolve())
            return
    shutil.copyfile(file, other)
