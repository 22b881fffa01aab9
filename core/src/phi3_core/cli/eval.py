"""``phi3 eval``: the quality report of a model on a device."""

from __future__ import annotations

import argparse

from phi3_core.errors import BackendError, UsageError

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


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
    command.add_argument("--reference", metavar="FOLDER", help="original weights to compare with [the model's own]")
    command.add_argument("--text", metavar="FILE", help="a text to evaluate with, 512 tokens of it [a built-in one]")
    options.finish(command, call, json="print the report as JSON")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from pathlib import Path

    from attrs import evolve

    from phi3_core import textfiles
    from phi3_core.checkpoint.checkpoint import Checkpoint
    from phi3_core.evaluation.evaluate import evaluate, evaluation_ids
    from phi3_core.models import sources
    from phi3_core.models.ref import look_up
    from phi3_core.pipeline import fetch
    from phi3_core.session import failed_attempt
    from phi3_core.store.store import Store
    from phi3_core.values import to_plain

    from . import output
    from .request import model_request

    text = None
    if given.text:
        text = textfiles.read(Path(given.text), "the text")
    progress = output.Progress()
    store = Store()
    reference = look_up(given.reference or given.model, store)
    if reference.form == "artifact":
        raise UsageError(f"{reference.path} has no original weights to compare with", hint="--reference FOLDER")
    fetched = fetch(evolve(model_request(given, progress), hook="logits"))
    artifact, device = fetched.resolved.artifact, fetched.device
    output.logger.info("%s %s, %s, on %s", fetched.ref.name, artifact.precision, fetched.resolved.origin, device)
    source = sources.source_of(reference, store, progress, offline=given.offline)
    ids, weights = evaluation_ids(fetched.resolved.tokenizer_dir, text), Checkpoint.open(source.path)
    try:
        report = evaluate(
            artifact,
            device,
            fetched.backend,
            ids=ids,
            reference=weights,
            progress=progress,
            options=dict(given.option),
        )
    except BackendError as error:
        failed_attempt(error, device)  # names the device
        raise
    progress.clear()
    if report.is_noise:
        output.logger.warning("the output is noise: %s", report.words)
    if given.json:
        document = {"model": fetched.ref.name, "device": str(device), "precision": artifact.precision}
        output.print_json({**document, **to_plain(report)})
    else:
        output.print_quality(to_plain(report))
    return 0
