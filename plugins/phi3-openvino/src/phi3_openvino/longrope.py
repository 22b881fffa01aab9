"""The second form of a longrope model's graph: one in which all positions turn by the long factors.

The graph chooses the factors by the last position of each pass, as transformers does. That is right for a prompt that
is read in one pass. But keys in a cache that were turned by the short factors are wrong in a longer sequence, and the
paged backend reads prompts in pieces, the first of which would always be turned by the short ones. So sequences beyond
the original context have a graph of their own, which has no choice and differs in one edge of its ``.xml`` file; both
refer to the same ``.bin`` file.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

from . import weights

CHOICE = "longrope/factors"
"""The graph's node that chooses the factors: a Select of condition, long ones and short ones."""


def chooses(xml: Path) -> bool:
    """Whether an IR is one of ours that chooses between two lists of factors."""
    return f'name="{CHOICE}"' in xml.read_text(encoding="utf-8")


def make_long(xml: Path, folder: Path) -> None:
    """Put the second form into ``folder``, unless it is there: another graph, and the same constants."""
    changed = folder / weights.IR
    if changed.is_file():
        return
    graph = ET.parse(xml)  # noqa: S314 - OpenVINO has read this file already, entities and all
    (choice,) = (layer.get("id") for layer in graph.iterfind("layers/layer") if layer.get("name") == CHOICE)
    edges = {edge.get("to-port"): edge for edge in graph.iterfind("edges/edge") if edge.get("to-layer") == choice}
    for end in ("from-layer", "from-port"):
        edges["2"].set(end, edges["1"].get(end, ""))
    _share(xml.with_suffix(".bin"), changed.with_suffix(".bin"))
    shutil.copyfile(xml.with_name("config.json"), changed.with_name("config.json"))
    # Last, since it is what says that the folder is whole.
    partial = changed.with_suffix(".partial")
    graph.write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(changed)


def _share(file: Path, other: Path) -> None:
    """Have a file under another name: not every system has links, and no link crosses volumes."""
    if other.exists() and other.samefile(file):
        return
    for way in (other.hardlink_to, other.symlink_to):
        with contextlib.suppress(OSError, NotImplementedError):
            other.unlink(missing_ok=True)
            way(file.resolve())
            return
    partial = other.with_suffix(".copy")
    shutil.copyfile(file, partial)
    partial.replace(other)
