"""The way in for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .models import DEFAULT

if TYPE_CHECKING:
    from .model import Model
    from .selection import Wish
    from .values import Progress
    from .worker.host import Worker

PURPOSES = ("answer", "conversation")


def load(
    model: str = DEFAULT,
    *,
    device: str = "auto",
    precision: str | None = None,
    policy: str = "auto",
    options: Mapping[str, str] | None = None,
    purpose: str = "conversation",
    progress: Progress | None = None,
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
    return load_with(
        start_spare(),
        model,
        device=device,
        precision=precision,
        policy=policy,
        options=options,
        purpose=purpose,
        progress=progress,
        refresh=refresh,
        offline=offline,
    )


def start_spare() -> Worker:
    """Start a worker process before anything else is imported: both sides' imports then take place side by side."""
    from .worker.host import Worker

    return Worker()


def load_with(spare: Worker, model: str, *, device: str, precision: str | None, policy: str, **rest: Any) -> Model:
    """:func:`load` with a worker that :func:`start_spare` started."""
    try:
        from .model import Model
        from .pipeline import no_progress, set_out

        wish = _wish(device, precision, policy, rest["purpose"])
        rest["progress"] = rest["progress"] or no_progress
        return Model(set_out(model, wish, spare=spare, **rest))
    except BaseException:
        spare.kill()
        raise


def _wish(device: str, precision: str | None, policy: str, purpose: str) -> Wish:
    from .selection import Wish

    if purpose not in PURPOSES:
        raise UsageError(f"unknown purpose {purpose!r}", hint=f"one of {', '.join(PURPOSES)}")
    try:
        return Wish(device=device, precision=precision, policy=policy)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error.args[0]) if error.args else str(error)) from error
