"""What commands with a model and a device do first: ask the backends, or load the model at once."""

from __future__ import annotations

from phi3_core import api

from . import options, output

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    import argparse

    from phi3_core.model import Model
    from phi3_core.pipeline import Journey
    from phi3_core.values import Progress


def set_out(given: argparse.Namespace, progress: Progress, *, update: bool = False) -> Journey:
    """The first two steps, for what the flags ask for."""
    from phi3_core import pipeline
    from phi3_core.selection import Wish

    wish = Wish(device=given.device, precision=given.precision, policy=given.policy)
    return pipeline.set_out(
        given.model, wish, progress=progress, refresh=given.refresh, offline=given.offline, update=update
    )


def open_model(given: argparse.Namespace, purpose: str) -> Model:
    """The model, loaded; options that make no sense are refused before that."""
    spare = api.start_spare()
    try:
        from phi3_core.replies import check_options

        check_options(options.generation(given))
    except BaseException:
        spare.kill()
        raise
    progress = output.Progress()
    try:
        return api.load_with(
            spare,
            given.model,
            device=given.device,
            precision=given.precision,
            policy=given.policy,
            options=dict(given.option),
            purpose=purpose,
            progress=progress,
            refresh=given.refresh,
            offline=given.offline,
        )
    finally:
        progress.clear()
