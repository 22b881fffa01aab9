"""``phi3 bench``: how fast a model is on the devices of this machine."""

from __future__ import annotations

import argparse

from phi3_core.models import DEFAULT

from . import configured, options

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from phi3_core.benchmarking.bench import Bench
    from phi3_core.benchmarking.results import Report, Result
    from phi3_core.loading import LoadedEngine


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "bench",
        help="first token and decode figures per device, table and chart",
        description="Measure a model on each device that has its weights, over tasks of several lengths.",
    )
    command.add_argument("model", metavar="MODEL", nargs="?", help=f"a name, a hub repository, or a folder [{DEFAULT}]")
    configured.mark(command, "model")
    options.add_device(command, preferred=False)  # a preference is not to keep the other devices from being measured
    options.add_engine(command)
    options.add_check(command)
    options.add_offline(command)
    group = command.add_argument_group("how it measures")
    group.add_argument("--quick", action="store_true", help="one task, at one precision of each device, one at a time")
    group.add_argument("--repeats", metavar="N", type=options.count, help="runs of each task [3]")
    group.add_argument(
        "--at-once", metavar="N", type=options.count, help="also so many answers at once, where the engine batches [8]"
    )
    group = command.add_argument_group("what becomes of it")
    group.add_argument("--save", action="store_true", help="keep the figures, by which devices are ranked")
    group.add_argument("--compare", metavar="FILE", help="compare with what an earlier --json printed")
    group.add_argument(
        "--chart", metavar="FILE.svg|png", help="draw the chart into a file; PNG needs the extra phi3-core[chart]"
    )
    options.finish(command, call, json="print the report as JSON")


def call(given: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from . import bench_output as shown
    from . import output

    _check(given)
    chart = _chart_file(given.chart)
    before = _earlier(given.compare)
    progress = output.Progress()
    bench = _bench(given, progress)
    if before is not None:
        _check_model(before, bench)
    report, error = bench.run()
    progress.clear()
    if given.json:
        output.print_json(shown.document(report, before))
    else:
        shown.print_report(report)
        if before is not None:
            shown.print_changes(before, report)
    if chart is not None:
        _write_chart(chart, report)
    if report.interrupted:
        output.logger.warning("interrupted; what was measured until then is shown")
        return 130
    if error is not None:
        raise error
    return 0


def _check(given: argparse.Namespace) -> None:
    from phi3_core.errors import UsageError

    if given.save and given.option:
        raise UsageError(
            "--save keeps figures of the settings that answers are given with", hint="leave --option or --save out"
        )


def _bench(given: argparse.Namespace, progress: Any) -> Bench:
    from phi3_core.benchmarking.bench import Bench
    from phi3_core.benchmarking.measure import Settings
    from phi3_core.benchmarking.tasks import QUICK, TASKS

    from .request import model_request

    repeats = given.repeats or 3
    at_once = given.at_once or (1 if given.quick else 8)
    return Bench(
        request=model_request(given, progress),
        settings=Settings(tasks=QUICK if given.quick else TASKS, repeats=repeats, at_once=at_once),
        quick=given.quick,
        save=_save if given.save else _drop,
    )


def _drop(engine: LoadedEngine, result: Result) -> None:
    """Keep nothing."""


def _save(engine: LoadedEngine, result: Result) -> None:
    import time

    from . import output

    figures = result.figures(time.time())
    if figures is None:
        return
    if engine.recorder is None:
        reason = "the configuration has options for its engine"
        output.logger.warning("the figures of %s are not kept: %s", result.device, reason)
        return
    try:
        engine.recorder.save_bench(figures)
    except OSError as error:
        output.logger.warning("the figures of %s are not kept: %s", result.device, error)


def _earlier(file: str | None) -> Report | None:
    from pathlib import Path

    from phi3_core import paths
    from phi3_core.benchmarking.compare import read_report
    from phi3_core.errors import UsageError

    if file is None:
        return None
    if not Path(file).is_file():
        raise UsageError(f"there is no file {file!r}", hint="--compare takes what phi3 bench --json printed")
    return read_report(paths.read_json(Path(file)), file)


def _check_model(before: Report, bench: Bench) -> None:
    """Raise :class:`UsageError` before anything is measured, if there is nothing to compare with."""
    from attrs import evolve

    from phi3_core.benchmarking.compare import compare
    from phi3_core.models.ref import look_up

    compare(before, evolve(before, model=look_up(bench.request.model, bench.store).name))


def _chart_file(given: str | None) -> Path | None:
    from phi3_core import paths
    from phi3_core.benchmarking import chart
    from phi3_core.errors import UsageError

    if given is None:
        return None
    file = paths.absolute(given)
    suffix = file.suffix.lower()
    if suffix not in chart.SUFFIXES:
        raise UsageError(
            f"the chart is drawn as SVG or PNG, and {given!r} is named as something else", hint="--chart bench.svg"
        )
    if suffix == ".png" and not chart.can_draw_png():
        raise UsageError("a chart as PNG needs Pillow", hint='pip install "phi3-core[chart]", or --chart bench.svg')
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {str(file.parent)!r}", hint="--chart names a file in an existing folder")
    return file


def _write_chart(file: Path, report: Report) -> None:
    from phi3_core.benchmarking import chart
    from phi3_core.disk import raise_if_full, reason
    from phi3_core.errors import UsageError

    from . import output

    hint = "--chart FILE.svg names another place"
    content = chart.png(report) if file.suffix.lower() == ".png" else chart.svg(report).encode()
    try:
        file.write_bytes(content)
    except OSError as error:
        raise_if_full(error, file, hint=hint)
        raise UsageError(f"the chart cannot be written: {reason(error)}: {file}", hint=hint) from error
    output.logger.info("the chart is in %s", file)
