"""Requests to an engine of the sample model, and by how much two answers to one differ."""

from __future__ import annotations

from phi3_core.values import Device, GenerationRequest, Sampling

CPU = Device(backend="openvino", id="CPU", kind="cpu", name="CPU")
NOISE = 0.5
"""By how much the logits of two candidates may differ where answers part: activations are rounded to 8 bits, and other
numbers of rows take other kernels."""


def asked(ids, new=24, *, lookup="auto", **sampling):
    return GenerationRequest(prompt_ids=tuple(ids), max_new_tokens=new, sampling=Sampling(**sampling), lookup=lookup)


def gap(loaded, prompt, one, other):
    """The difference of the two candidates' logits where two answers part; 0 if they are the same."""
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        if left != right:
            row = loaded.logits([*prompt, *one[:place]])[-1]
            return float(abs(row[left] - row[right]))
    return 0.0
