"""What ``run`` and ``chat`` do first: load the model that their flags ask for."""

from __future__ import annotations

from phi3_core import api

from . import options, output

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    import argparse

    from phi3_core.model import Model


def open_model(given: argparse.Namespace, purpose: str) -> Model:
    """The model, loaded; options that make no sense are refused before that."""
    spare = api.start_spare()
    try:
        from phi3_core.answers import check_options

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
