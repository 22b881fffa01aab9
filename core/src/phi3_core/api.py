"""The way in for programs."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import UsageError
from .model import Model
from .models.catalogue import DEFAULT
from .pipeline import no_progress, set_out
from .selection import Wish
from .values import Progress

PURPOSES = ("answer", "conversation")


def load(
    model: str = DEFAULT,
    *,
    device: str = "auto",
    precision: str | None = None,
    policy: str = "auto",
    options: Mapping[str, str] | None = None,
    purpose: str = "conversation",
    progress: Progress = no_progress,
    refresh: bool = False,
    offline: bool = False,
) -> Model:
    """Load a model on the best device, or on the one that is named.

    Args:
        model: a name of the catalogue or the store, a model folder, or a GGUF file.
        device: ``auto``, a backend, a kind (``cpu``, ``gpu``, ``dgpu``, ``npu``), or ``backend:device``.
        precision: ``fp16``, ``int8`` or ``int4``; without it the best that can be had.
        policy: ``auto``, ``performance`` or ``efficiency``.
        options: handed to the engine, in its runtime's own words.
        purpose: ``conversation`` keeps the work of earlier prompts for later ones; ``answer`` starts faster.
        progress: called while the model is being obtained.
        refresh: ask the backends again, whatever was cached.
        offline: take only what is on this machine.

    Raises:
        UsageError, NoDeviceError, ModelError, BackendError: see :mod:`phi3_core.errors`.

    What the runtime decides on its way, and why, it logs as ``phi3_core``; warnings show up on stderr unless
    logging is configured otherwise. No ``if __name__ == "__main__"`` guard is needed.
    """
    if purpose not in PURPOSES:
        raise UsageError(f"unknown purpose {purpose!r}", hint=f"one of {', '.join(PURPOSES)}")
    try:
        wish = Wish(device=device, precision=precision, policy=policy)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error.args[0]) if error.args else str(error)) from error
    journey = set_out(
        model, wish, options=options, purpose=purpose, progress=progress, refresh=refresh, offline=offline
    )
    return Model(journey)
