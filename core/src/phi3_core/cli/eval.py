"""``phi3 eval``: the quality report of a model on a device."""

from __future__ import annotations

import argparse

from phi3_core.errors import ModelError, UsageError

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from phi3_core.checkpoint.checkpoint import Checkpoint
    from phi3_core.evaluation.evaluate import EngineLogits
    from phi3_core.models.ref import ModelRef
    from phi3_core.models.request import FetchedModel, ModelRequest
    from phi3_core.store.store import Store


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "eval",
        help="the quality report: perplexity, KL divergence and top-1 agreement",
        description="Compare a model on a device with its original weights.",
    )
    command.add_argument("model", metavar="MODEL", help="a name, a hub repository, or a model folder")
    options.add_device(command)
    options.add_engine(command)
    options.add_offline(command)
    command.add_argument(
        "--reference",
        metavar="FOLDER",
        help="original weights to compare with, or a backend that runs them [the model's own, run by phi3-core]",
    )
    command.add_argument("--text", metavar="FILE", help="a text to evaluate with, 512 tokens of it [a built-in one]")
    options.finish(command, call, json="print the report as JSON")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from pathlib import Path

    from attrs import evolve

    from phi3_core import textfiles
    from phi3_core.evaluation.evaluate import evaluate, evaluation_ids
    from phi3_core.models.ref import look_up
    from phi3_core.pipeline import fetch
    from phi3_core.store.store import Store
    from phi3_core.values import to_plain

    from . import output
    from .request import model_request

    text = None
    if given.text:
        text = textfiles.read(Path(given.text), "the text")
    progress = output.Progress()
    store = Store()
    reference = None
    if not _is_backend(given.reference):
        try:
            reference = look_up(given.reference or given.model, store)
        except ModelError as error:
            if given.reference is not None:
                error.hint = "--reference takes original weights, or a backend that phi3 plugins lists"
            raise
    if reference is not None and reference.form == "artifact":
        raise UsageError(f"{reference.path} has no original weights to compare with", hint="--reference FOLDER")
    request = evolve(model_request(given, progress), hook="logits")
    fetched = fetch(request)
    engine = _engine(fetched, request.options_of(fetched.device.backend))
    ids = evaluation_ids(fetched.resolved.tokenizer_dir, text)
    compared = _other_engine(request, given.reference) if reference is None else _weights(reference, store, request)
    report = evaluate(engine, reference=compared, ids=ids, progress=progress)
    progress.clear()
    if report.is_noise:
        output.logger.warning("the output is noise: %s", report.words)
    if given.json:
        document = {"model": fetched.ref.name, "device": str(engine.device), "precision": engine.artifact.precision}
        output.print_json({**document, **to_plain(report)})
    else:
        output.print_quality(to_plain(report))
    return 0


def _is_backend(name: str | None) -> bool:
    from phi3_core.plugin import installed

    return name is not None and any(backend.name == name for backend in installed()[0])


def _weights(reference: ModelRef, store: Store, request: ModelRequest) -> Checkpoint:
    """Return the original weights to compare with."""
    from phi3_core.checkpoint.checkpoint import Checkpoint
    from phi3_core.models import sources

    return Checkpoint.open(sources.source_of(reference, store, request.progress, offline=request.offline).path)


def _other_engine(request: ModelRequest, backend: str) -> EngineLogits:
    """Return the same model on a device of the backend to compare with."""
    from attrs import evolve

    from phi3_core.pipeline import fetch
    from phi3_core.selection import DeviceRequest

    return _engine(fetch(evolve(request, device=DeviceRequest(device=backend))), {})


def _engine(fetched: FetchedModel, engine_options: dict[str, str]) -> EngineLogits:
    from phi3_core.evaluation.evaluate import EngineLogits

    from . import output

    artifact, device = fetched.resolved.artifact, fetched.device
    output.logger.info("%s %s, %s, on %s", fetched.ref.name, artifact.precision, fetched.resolved.origin, device)
    return EngineLogits(artifact=artifact, device=device, backend=fetched.backend, options=engine_options)
