"""``phi3 models pull``: obtain a model, or show what would be downloaded."""

from __future__ import annotations

import argparse

from phi3_core.units import format_bytes


def call_pull(given: argparse.Namespace) -> int:
    """Run ``phi3 models pull`` and return its exit code."""
    from phi3_core.models import local, sources
    from phi3_core.models.ref import look_up
    from phi3_core.pipeline import fetch
    from phi3_core.store.store import Store

    from . import output
    from .request import model_request

    if given.dry_run:
        return _dry_run(given)
    progress = output.Progress()
    if given.source:
        from phi3_core.checkpoint.gguf_parts import linked_file

        store = Store()
        source = sources.source_of(
            look_up(given.model, store), store, progress, offline=given.offline, update=given.update
        )
        path = linked_file(source.path) or source.path
        result = {"model": source.model, "form": "source", "revision": source.revision, "path": path}
    else:
        fetched = fetch(model_request(given, progress, update=given.update))
        artifact = fetched.resolved.artifact
        if not artifact.path.is_relative_to(Store().root):
            artifact = local.import_into_store(fetched.ref.name, fetched.resolved, Store())
        result = {
            "model": fetched.ref.name,
            "form": "artifact",
            "device": str(fetched.device),
            "backend": artifact.backend,
            "precision": artifact.precision,
            "revision": artifact.manifest.get("revision"),
            "how": fetched.resolved.origin,
            "path": artifact.path,
        }
    progress.clear()
    if given.json:
        output.print_json(result)
    else:
        print(result["path"])
    return 0


def _dry_run(given: argparse.Namespace) -> int:
    """Print the files that a pull would download, with their sizes."""
    from phi3_core.models import download_plan
    from phi3_core.models.ref import look_up
    from phi3_core.pipeline import plan
    from phi3_core.store.store import Store

    from . import output
    from .request import model_request

    if given.source:
        store = Store()
        ref = look_up(given.model, store)
        planned = download_plan.for_source(ref, store, offline=given.offline, update=given.update)
    else:
        planned = plan(model_request(given, output.Progress(), update=given.update))
    if given.json:
        output.print_json(planned)
        return 0
    for file in planned.files:
        print(f"{format_bytes(file.size):>10}  {file.name}")
    print(f"{format_bytes(planned.size_bytes):>10}  {planned.words}")
    return 0
