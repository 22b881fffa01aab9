"""Graph layouts for CPUs and for DirectML.

``GroupQueryAttention`` of ONNX Runtime 1.24 differs between execution providers. On CPUs it accepts queries, keys and
values in one tensor, applies the rotary embedding and supports sliding windows. On DirectML it requires separate
tensors that are rotated already, and ignores the sliding window. CPUs compute in float32, DirectML in float16.
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md describes the operators.
"""

from __future__ import annotations

from attrs import frozen
from phi3_core.backend import Architecture


@frozen(kw_only=True)
class Layout:
    """The form of a graph that an execution provider requires."""

    name: str
    """The name in ``Offer.layout``."""
    float16: bool
    """Whether the graph computes in float16 instead of float32."""
    fused: bool
    """Whether attention accepts queries, keys and values together and rotates them; see :func:`is_fused`."""
    explicit_zeros: bool
    """Whether to write default zero points: without them DirectML's ``MatMulNBits`` uses 0 instead of 8 or 128."""
    accuracy: int
    """``accuracy_level`` of ``MatMulNBits``: 4 allows rounding its inputs to 8 bits, 0 is the provider's default."""


CPU = Layout(name="", float16=False, fused=True, explicit_zeros=False, accuracy=4)
DIRECTML = Layout(name="dml", float16=True, fused=False, explicit_zeros=True, accuracy=0)


def is_fused(shape: Architecture, layout: Layout) -> bool:
    """Return whether attention applies the rotary embedding: on CPUs, if its size is a multiple of 16."""
    return layout.fused and shape.rotary.size % 16 == 0
