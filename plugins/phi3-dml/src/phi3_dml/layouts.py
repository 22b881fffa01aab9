"""What the graphs for CPUs and for DirectML differ in.

The providers' attention differs (``GroupQueryAttention`` of ONNX Runtime 1.24: the CPU's takes queries, keys and values
in one piece, turns them itself and knows the sliding window; DirectML's wants them apart and turned already, and its
kernel sees everything before, whatever the window). The CPU computes in float32, DirectML in halves.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md describes the operators.
"""

from __future__ import annotations

from attrs import frozen
from phi3_core.backend import Architecture


@frozen(kw_only=True)
class Layout:
    """What a provider wants its graph to be like."""

    name: str
    """As in ``Offer.layout``."""
    float16: bool
    """Compute in half precision instead of float32."""
    fused: bool
    """Attention takes queries, keys and values together and turns them itself, if it can; see :func:`is_fused`."""
    explicit_zeros: bool
    """``MatMulNBits`` needs its zero points in writing: DirectML takes those that are left out for 0, not 8 or 128."""
    accuracy: int
    """``accuracy_level`` of ``MatMulNBits``: 4 lets it round its inputs to 8 bits, 0 leaves the choice to it."""


CPU = Layout(name="", float16=False, fused=True, explicit_zeros=False, accuracy=4)
DIRECTML = Layout(name="dml", float16=True, fused=False, explicit_zeros=True, accuracy=0)
LAYOUTS = {layout.name: layout for layout in (CPU, DIRECTML)}


def is_fused(shape: Architecture, layout: Layout) -> bool:
    """The CPU's attention turns heads by multiples of 16 only, in whole or in part."""
    return layout.fused and shape.rotary.size % 16 == 0
