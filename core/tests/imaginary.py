"""Imaginary machines for tests: what backends offer, what was measured, and which devices failed."""

from __future__ import annotations

from phi3_core.figures.values import Failure, Figures, Known
from phi3_core.plugin import Backend
from phi3_core.surveys import Answer, Survey
from phi3_core.values import Device, Machine, Offer, Refusal

GIB = 2**30


def offer(name: str, kind: str, *, memory=None, precisions=("int4", "int8"), maturity="stable", automatic=True):
    backend, _, number = name.partition(":")
    device = Device(backend=backend, id=number, kind=kind, name=f"the {name}", memory_bytes=memory)
    return Offer(device=device, precisions=precisions, maturity=maturity, automatic=automatic)


def surveyed(*answers, broken=(), on_battery=False, memory=16 * GIB) -> Survey:
    """A survey of offers and of pairs of a backend and its refusal."""
    found: dict[str, list[Offer | Refusal]] = {}
    for answer in answers:
        name, what = answer if isinstance(answer, tuple) else (answer.device.backend, answer)
        found.setdefault(name, []).append(what)
    return Survey(
        machine=Machine(os="linux", architecture="x86_64", memory_bytes=memory, on_battery=on_battery),
        answers=[
            Answer(
                backend=Backend(name=name, target=name, distribution=f"phi3-{name}", version="1"),
                hooks=(),
                offers=[what for what in said if isinstance(what, Offer)],
                refusals=[what for what in said if isinstance(what, Refusal)],
            )
            for name, said in found.items()
        ],
        broken=broken,
    )


NOW, DAY = 1_000_000.0, 86400.0


def figures(seconds, *, joules=None, precision="int4", **facts) -> Figures:
    """Figures of a device that takes so many seconds for 128 and 128 tokens."""
    return Figures(
        precision=precision,
        first_token_s={128: seconds / 2},
        decode_tokens_per_s=127 / (seconds / 2),
        joules_per_token=joules,
        measured=NOW - 2 * DAY,
        **facts,
    )


def known(*failed, **measured) -> Known:
    """``ov__CPU=figures(…)`` is what was measured of ``ov:CPU``; ``failed`` are names of devices."""
    by_device = {name.replace("__", ":").replace("_0", ".0"): found for name, found in measured.items()}
    return Known(
        figures={(device, found.precision): found for device, found in by_device.items()},
        failures={
            device: Failure(device=device, reason="its process died during generate (SIGSEGV)", time=NOW - 720)
            for device in failed
        },
        now=NOW,
    )
