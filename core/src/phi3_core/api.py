"""Loading a model from a program: ``phi3_core.load``."""

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
    offline: bool = False,
) -> Model:
    """Load a model on the best device, or on the one that is named.

    ::

        with phi3_core.load("sample", device="auto") as model:
            print(model.generate("What is the capital of France?").text)

    Args:
        model: a name of the catalogue or the store, a hub repository, a model folder, or a GGUF file.
        device: ``auto``, a backend, a kind (``cpu``, ``gpu``, ``dgpu``, ``npu``), or ``backend:device``.
        precision: ``fp16``, ``int8`` or ``int4``; without it the backend's preferred one that is available.
        policy: ``auto``, ``performance`` or ``efficiency``.
        options: handed to the engine, in its runtime's own words.
        purpose: ``conversation`` keeps the work of earlier prompts for later ones; ``answer`` starts faster.
        progress: called with a stage while the model is obtained and loaded.
        refresh: ask the backends again, whatever was cached.
        offline: take only what is on this machine.

    Raises:
        UsageError: an argument makes no sense, or the engine does not take one of the options.
        NoDeviceError: no device fits the request.
        ModelError: the model is unknown, damaged, out of reach, or fits no device.
        BackendError: the backend failed.

    What the runtime decides, and why, it logs as ``phi3_core``; warnings show up on stderr unless logging is
    configured otherwise. No ``if __name__ == "__main__"`` guard is needed.
    """
    from .worker.pool import WorkerPool  # start-up: `import phi3_core` costs next to nothing

    with WorkerPool().prestart() as pool:
        # start-up: imported after the worker was started, so that both processes import side by side
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
                offline=offline,
            )
        return Model(open_session(request, pool))
