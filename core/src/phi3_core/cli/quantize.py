"""``phi3 quantize``: quantize original weights for a device, and measure the quality."""

from __future__ import annotations

import argparse

from phi3_core.errors import UsageError, as_usage_error

from . import options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from typing import Any


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "quantize",
        help="quantize a model for a device, and measure the quality",
        description="Quantize a model's original weights for a device.",
    )
    command.add_argument(
        "model", metavar="MODEL", help="a name, a hub repository, or original weights: a folder, or a GGUF file"
    )
    options.add_device(command)
    options.add_offline(command)
    group = command.add_argument_group("how it is quantized")
    group.add_argument("--group-size", metavar="N", type=int, help="weights per scale; -1 for one scale per channel")
    group.add_argument("--ratio", metavar="R", type=float, default=1.0, help="share of layers in int4, the rest int8")
    symmetry = group.add_mutually_exclusive_group()
    symmetry.add_argument("--sym", dest="symmetric", action="store_true", default=None, help="symmetric rounding")
    symmetry.add_argument("--asym", dest="symmetric", action="store_false", help="with zero points")
    group.add_argument("--calibration", metavar="FILE", help="a text to calibrate with; none turns calibration off")
    group.add_argument(
        "--exporter",
        metavar="NAME",
        default="builtin",
        help="builtin (the default), or reference: the runtime vendor's exporter, installed on first use (slow, large)",
    )
    group.add_argument("--no-check", action="store_true", help="skip the quality check")
    command.add_argument("--output", metavar="FOLDER", help="copy the result there too")
    options.finish(command, call, json="print the result as JSON")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from phi3_core.paths import absolute
    from phi3_core.pipeline import fetch
    from phi3_core.store import export
    from phi3_core.values import Recipe

    from . import output
    from .request import model_request

    if given.precision is None:
        raise UsageError("--precision is required", hint=f"phi3 quantize {given.model} --precision int4")
    target = absolute(given.output) if given.output else None
    if target is not None:
        export.check(target)
    extra = {} if given.exporter == "builtin" else {"exporter": given.exporter}
    if given.calibration:
        extra["calibration"] = given.calibration if given.calibration == "none" else str(absolute(given.calibration))
    with as_usage_error(hint="phi3 quantize --help"):
        recipe = Recipe(
            precision=given.precision,
            group_size=given.group_size,
            ratio=given.ratio,
            symmetric=given.symmetric,
            extra=extra,
        )
    progress = output.Progress()
    fetched = fetch(model_request(given, progress, recipe=recipe, check_quality=not given.no_check))
    progress.clear()
    artifact, origin = fetched.resolved.artifact, fetched.resolved.origin
    if target is not None:
        export.copy(artifact.path, target)
    quality = artifact.manifest.get("quality")
    if given.json:
        output.print_json(
            {
                "model": fetched.ref.name,
                "device": str(fetched.device),
                "precision": artifact.precision,
                "recipe": artifact.manifest.get("recipe"),
                "quality": quality,
                "how": origin,
                "path": target or artifact.path,
            }
        )
    else:
        output.logger.info("%s, for %s", origin, fetched.device)
        if quality:
            output.print_quality(quality)
        print(target or artifact.path)
    return 0
