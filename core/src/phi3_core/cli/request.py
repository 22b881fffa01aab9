"""Requests from command-line flags, and loading the model for ``run`` and ``chat``."""

from __future__ import annotations

from . import options, output

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    import argparse

    from phi3_core.model import Model
    from phi3_core.models.request import ModelRequest
    from phi3_core.remote.model import RemoteModel
    from phi3_core.replies import GenerationSettings
    from phi3_core.values import Progress, Recipe


def model_request(
    given: argparse.Namespace,
    progress: Progress,
    *,
    purpose: str = "conversation",
    prompt_tokens: int | None = None,
    update: bool = False,
    recipe: Recipe | None = None,
    check_quality: bool = True,
    max_waiting: int | None = None,
) -> ModelRequest:
    """Return the request for the flags that select a model and a device."""
    from phi3_core.config.values import engine_options
    from phi3_core.models.request import ModelRequest
    from phi3_core.selection import DeviceRequest

    return ModelRequest(
        model=given.model,
        device=DeviceRequest(device=given.device, precision=given.precision, policy=given.policy),
        options=dict(getattr(given, "option", ())),
        backend_options=engine_options(),
        purpose=purpose,
        prompt_tokens=prompt_tokens,
        progress=progress,
        refresh=given.refresh,
        offline=given.offline,
        update=update,
        recipe=recipe,
        check_quality=check_quality,
        max_waiting=max_waiting,
        check_answers=getattr(given, "check", True),
    )


def open_model(
    given: argparse.Namespace, purpose: str, prompt: str | None = None
) -> tuple[Model | RemoteModel, GenerationSettings]:
    """Validate the generation flags, load the model, and return both.

    A running server of this user that has loaded the model is used instead, if the flags allow for it.

    Args:
        given: the flags.
        purpose: ``answer`` or ``conversation``.
        prompt: what the model is loaded for, if that is known.
    """
    if (served := _served(given)) is not None:
        return served
    from phi3_core.worker.pool import WorkerPool

    with WorkerPool().prestart() as pool:
        # start-up: imported after the worker has started, so that both processes import in parallel
        from phi3_core.model import Model
        from phi3_core.pipeline import open_session
        from phi3_core.replies import GenerationSettings

        settings = GenerationSettings.of(options.generation(given))
        progress = output.Progress()
        tokens = None if prompt is None else _estimated_tokens(prompt)
        try:
            request = model_request(given, progress, purpose=purpose, prompt_tokens=tokens)
            return Model(open_session(request, pool)), settings
        finally:
            progress.clear()


def _served(given: argparse.Namespace) -> tuple[RemoteModel, GenerationSettings] | None:
    """Return the model of a running server, and the settings; None without such a server."""
    if not given.server or given.option or given.refresh or given.policy != "auto" or not given.check:
        return None
    from phi3_core.remote.servers import is_any

    if not is_any():
        return None
    from phi3_core.models.ref import look_up
    from phi3_core.remote.model import can_be_asked, find
    from phi3_core.replies import GenerationSettings
    from phi3_core.store.store import Store

    settings = GenerationSettings.of(options.generation(given))
    ref = look_up(given.model, Store())
    if not can_be_asked(settings):
        return None
    model = find(ref.name, ref.store_name, given.device, given.precision)
    if model is None:
        return None
    words = "%s in %s on %s, which phi3 serve has loaded at %s (--no-server loads it here)"
    output.logger.info(words, model.name, model.precision, model.device, model.address)
    return model, settings


def _estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has: one for four ASCII characters, and one for each other character."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return ascii_characters // 4 + len(text) - ascii_characters
