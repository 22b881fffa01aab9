"""``quantize``: a folder that ``load`` takes, and nothing anywhere else."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest

from phi3_core.errors import BackendError, Phi3Error
from phi3_core.models.output import Surroundings, problem
from phi3_core.values import Artifact, Offer, Recipe

from . import models
from .base import ContractBase, blocked
from .progress import Told
from .subject import LIMIT_S, Subject


class Run:
    """What one call of ``quantize`` did."""

    def __init__(self, subject: Subject, offer: Offer, precision: str) -> None:
        source = subject.source(models.PLAIN)
        self.output = subject.empty(f"{models.PLAIN}-{precision}-watched")
        self.told = Told()
        digests, around = _digests(source.path), Surroundings.of(self.output, source.path)
        place = subject.empty("place")
        given = {"source": source, "device": offer.device, "recipe": Recipe(precision=precision)}

        with subject.start(place) as worker:
            worker.call("quantize", limit_s=LIMIT_S, progress=self.told, output=self.output, **given)
            # A runtime may keep a file as long as its process lives.
            worker.close()
        self.stray = [*filter(None, [around.stray()]), *_files(place)]
        self.changed = [name for name, digest in _digests(source.path).items() if digests.get(name) != digest]
        self.problem = problem(Surroundings.of(self.output, source.path))


class Quantizing(ContractBase):
    """What ``quantize`` writes, and where."""

    @pytest.fixture
    def run(self, subject: Subject, offered: str, offer: Offer, quantizes: None) -> Run:
        """A call of ``quantize`` with the defaults of one precision."""
        try:
            return subject.once(("run", offered), lambda: Run(subject, offer, offered))
        except Phi3Error as error:
            blocked("quantize", error)

    def test_quantize_fills_its_output(self, subject: Subject, offer: Offer, offered: str, quantizes: None) -> None:
        """With weights, as files of its own."""
        found = subject.once(("run", offered), lambda: Run(subject, offer, offered))
        assert found.problem is None, f"quantize {found.problem}"

    def test_quantize_writes_only_into_its_output(self, run: Run) -> None:
        """Not beside it, into the source, into the current folder, nor into the folder for temporary files."""
        assert run.stray == [], f"quantize left {', '.join(map(str, run.stray))}"

    def test_quantize_leaves_the_source_as_it_is(self, run: Run) -> None:
        """The original weights may be the user's own."""
        assert run.changed == [], f"quantize changed {', '.join(run.changed)} of the source"

    def test_quantize_tells_its_progress(self, run: Run) -> None:
        """With a model of real size, a backend that says nothing counts as hung."""
        assert run.told.calls, "quantize never called progress"
        run.told.check("quantize")

    def test_quantize_takes_each_shape(
        self, subject: Subject, offer: Offer, best: str, artifact: Artifact, shape: str
    ) -> None:
        """Of the family: fewer key heads, tied embeddings, a window, longrope, and dimensions that are not rotated."""
        subject.artifact(shape, offer, best)

    def test_quantize_that_is_killed_leaves_nothing_behind(
        self, subject: Subject, offer: Offer, best: str, artifact: Artifact
    ) -> None:
        """But in its output, which core removes."""
        source, output = subject.source(models.PLAIN), subject.empty("killed")
        around = Surroundings.of(output, source.path)
        place = subject.empty("place")
        given = {"source": source, "device": offer.device, "recipe": Recipe(precision=best), "output": output}
        with subject.start(place) as worker:

            def kill(stage: str, done: int | None = None, total: int | None = None) -> None:  # noqa: ARG001 - Progress
                worker.kill()

            with contextlib.suppress(BackendError):  # that its process has died
                worker.call("quantize", limit_s=LIMIT_S, progress=kill, **given)
        stray = [*filter(None, [around.stray()]), *_files(place)]
        assert stray == [], f"quantize left {', '.join(map(str, stray))}"


def _files(place: Path) -> list[Path]:
    """Return what the current and the temporary folder of a process have."""
    return sorted(path for path in place.rglob("*") if path.parent != place)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}
