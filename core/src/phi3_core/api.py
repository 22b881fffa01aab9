"""``phi3_core.load``: load a model from Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .models import DEFAULT

if TYPE_CHECKING:
    from .model import Model
    from .values import Progress


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
    offline: bool | None = None,
    max_waiting: int | None = None,
    check: bool = True,
) -> Model:
    """Load a model on the best device, or on a given one.

    ::

        with phi3_core.load("sample", device="auto") as model:
            print(model.generate("What is the capital of France?").text)

    Args:
        model: a model name or alias (``phi3 models list``), hub repository, model folder or GGUF file.
        device: ``auto``, a backend, a kind (``cpu``, ``gpu``, ``dgpu``, ``npu``) or ``backend:device``.
        precision: ``fp16``, ``int8`` or ``int4``; by default the first available one that the backend prefers.
        policy: how devices are ranked: ``auto``, ``performance`` or ``efficiency``.
        options: runtime options, passed to the engine unchanged.
        purpose: ``conversation`` reuses the KV cache of earlier prompts; ``answer`` starts faster.
        progress: called with the current stage while the model is obtained and loaded.
        refresh: ask the backends again instead of using their cached answers.
        offline: use only files that are on this machine; by default what ``phi3 config`` shows.
        max_waiting: how many answers may wait while the engine generates as many as it can; None for any number. One
            more raises :class:`~phi3_core.errors.QueueFullError` when it is first read.
        check: compare with known answers the first time that the artifact runs on a device with this driver.

    Returns:
        The loaded model. Close it, or use it in a ``with`` statement, to stop its worker process.

    Raises:
        UsageError: an argument is invalid, or the engine does not accept one of the options.
        NoDeviceError: no device matches the request.
        ModelError: the model is unknown, damaged, cannot be obtained, or fits no device.
        BackendError: the backend of the last matching device failed, or gives wrong answers.

    Preferences of the user's configuration (``phi3 config``), such as a model, a device or a temperature, are for
    commands and do not change what a call does. The store's folder, time limits, aliases and ``offline`` hold here too.

    Decisions and their reasons are logged under ``phi3_core``; warnings are printed to stderr unless logging is
    configured otherwise. No ``if __name__ == "__main__"`` guard is needed.
    """
    from .worker.pool import WorkerPool  # start-up: keeps `import phi3_core` cheap

    with WorkerPool().prestart() as pool:
        # start-up: imported after the worker has started, so that both processes import in parallel
        from .config.values import value
        from .errors import as_usage_error
        from .model import Model
        from .models.request import ModelRequest
        from .pipeline import open_session
        from .selection import DeviceRequest
        from .values import no_progress

        with as_usage_error():
            request = ModelRequest(
                model=model,
                device=DeviceRequest(device=device, precision=precision, policy=policy),
                options=options or {},
                purpose=purpose,
                progress=progress or no_progress,
                refresh=refresh,
                offline=value("offline") if offline is None else offline,
                max_waiting=max_waiting,
                check_answers=check,
            )
        return Model(open_session(request, pool))
