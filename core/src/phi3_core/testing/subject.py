"""The backend under test: its worker processes, and what is made once and used by many tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy.typing as npt

from phi3_core.checkpoint import forward
from phi3_core.checkpoint.checkpoint import Checkpoint
from phi3_core.errors import BackendError, Phi3Error
from phi3_core.machine import this_machine
from phi3_core.models.output import Surroundings, problem
from phi3_core.plugin import Backend
from phi3_core.store import sidecars
from phi3_core.values import Artifact, Machine, Offer, Progress, Recipe, Refusal, Source, no_progress
from phi3_core.worker.host import Worker

from . import models
from .engines import LoadedEngine
from .progress import Told

LIMIT_S = 300.0
"""The time limit of a call, in seconds."""
CURRENT, TEMPORARY = "current", "temporary"
"""The names of the folders of a process."""

T = TypeVar("T")


class Subject:
    """A backend, and what the kit has made with it.

    Args:
        backend: the installed backend.
        folder: an empty folder for all that is written.
        options: options for every engine.
    """

    def __init__(self, backend: Backend, folder: Path, options: Mapping[str, str]) -> None:
        self.backend = backend
        self.folder = folder
        self.options = dict(options)
        self.home = folder / "home"
        """The store."""
        self.detect_s = 0.0
        """The time that ``detect`` took the first time, in seconds."""
        self._worker: Worker | None = None
        self.told = Told()
        """The progress that ``load`` has told."""
        self._loaded: LoadedEngine | None = None
        self._made: dict[object, Any] = {}
        self._count = 0

    def close(self) -> None:
        """End all processes."""
        if self._loaded is not None:
            self._loaded.worker.close()
        if self._worker is not None:
            self._worker.close()
        self._worker = self._loaded = None

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Return what ``make`` returns, or raise what it raises, the first time that it is needed."""
        if key not in self._made:
            try:
                self._made[key] = make()
            except (Phi3Error, AssertionError) as error:
                self._made[key] = error
        made = self._made[key]
        if isinstance(made, Exception):
            raise made.with_traceback(None)
        return made  # type: ignore[no-any-return]

    # --- processes ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def surroundings(self, place: Path | None = None) -> Iterator[None]:
        """Give processes that are started the store of this object, and a current and a temporary folder of their own.

        Args:
            place: where these two are made.
        """
        place = place or self.empty("processes")
        for name in (CURRENT, TEMPORARY):
            (place / name).mkdir()
        names = {"PHI3_HOME": self.home} | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), place / TEMPORARY)
        before, current = {name: os.environ.get(name) for name in names}, Path.cwd()
        try:
            os.environ.update({name: str(path) for name, path in names.items()})
            os.chdir(place / CURRENT)
            yield
        finally:
            os.chdir(current)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def start(self, place: Path | None = None) -> Worker:
        """Return a new worker process of the backend. The caller ends it. See :meth:`surroundings`."""
        with self.surroundings(place):
            return Worker().open(self.backend)

    @property
    def worker(self) -> Worker:
        """A process that loads no engine."""
        if self._worker is None or not self._worker.alive:
            self._worker = self.start()
        return self._worker

    def call(self, verb: str, progress: Progress | None = None, **arguments: object) -> Any:
        """Make a call in that process."""
        return self.worker.call(verb, limit_s=LIMIT_S, progress=progress, **arguments)

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that the plugin implements."""

        def ask() -> tuple[str, ...]:
            worker = self.worker
            try:
                return worker.hooks
            except BaseException:
                worker.kill()
                raise

        return self.once("hooks", ask)

    # --- what is made once ----------------------------------------------------------------------------------------

    def detect(self, machine: Machine | None = None) -> list[Offer | Refusal]:
        """Call ``detect``, by default for this machine."""
        answers = self.call("detect", machine=machine or this_machine())
        return [Offer(**each["offer"]) if "offer" in each else Refusal(**each["refusal"]) for each in answers]

    @property
    def answers(self) -> list[Offer | Refusal]:
        """What ``detect`` answers."""
        return self.once("answers", self._detect_first)

    def _detect_first(self) -> list[Offer | Refusal]:
        _ = self.hooks  # the import has no part in the time
        begun = time.monotonic()
        answers = self.detect()
        self.detect_s = time.monotonic() - begun
        return answers

    def offer(self, device: str | None) -> Offer | None:
        """Return the offer of a device; of the first automatic one, else of the first, if None is named."""
        offers = [answer for answer in self.answers if isinstance(answer, Offer)]
        if device is not None:
            return next((offer for offer in offers if device in {offer.device.id, str(offer.device)}), None)
        return next((offer for offer in offers if offer.automatic), next(iter(offers), None))

    def source(self, name: str) -> Source:
        """Return a model of :data:`phi3_core.testing.models.MODELS`. Tests leave it as it is."""
        folder = self.folder / "sources" / name
        path = self.once(("source", name), lambda: models.write_model(folder, name))
        return Source(path=path, model=name)

    def empty(self, name: str) -> Path:
        """Return a new folder, alone in a folder of its own."""
        self._count += 1
        folder = self.folder / "made" / str(self._count) / name
        folder.mkdir(parents=True)
        return folder

    def copied(self, path: Path, name: str) -> Path:
        """Return a new folder with copies of the files in another one, which may be changed."""
        folder = self.empty(name)
        shutil.copytree(path, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
        return folder

    def quantize(self, source: Source, offer: Offer, recipe: Recipe, output: Path) -> Mapping[str, str] | None:
        """Call ``quantize``."""
        given = {"source": source, "device": offer.device, "recipe": recipe, "output": output}
        tools: Mapping[str, str] | None = self.call("quantize", no_progress, **given)
        return tools

    def artifact(self, name: str, offer: Offer, precision: str) -> Artifact:
        """Return a quantized model. Tests leave it as it is."""

        def make() -> Artifact:
            source, output = self.source(name), self.empty(f"{name}-{precision}")
            around = Surroundings.of(output, source.path)
            self.quantize(source, offer, Recipe(precision=precision), output)
            if (words := problem(around)) is not None:  # core asks the same
                raise BackendError(f"quantize {words}")
            sidecars.copy_sidecars(source.path, output)  # as core does
            digest = f"{name}-{precision}".ljust(64, "0")
            manifest = {"digest": digest}
            return Artifact(path=output, backend=self.backend.name, precision=precision, manifest=manifest)

        return self.once(("artifact", name, precision), make)

    def engine(
        self,
        name: str,
        offer: Offer,
        precision: str,
        purpose: str = "conversation",
        *,
        prompt_tokens: int | None = None,
        fresh: bool = False,
    ) -> LoadedEngine:
        """Return an engine with a quantized model.

        Args:
            name: the model.
            offer: the device.
            precision: the precision.
            purpose: what it is for.
            prompt_tokens: about how long its prompt will be.
            fresh: whether it is to be loaded anew, so that it knows no earlier request.
        """
        artifact = self.artifact(name, offer, precision)
        key = (name, precision, purpose, prompt_tokens)
        loaded, self._loaded = self._loaded, None
        if loaded is not None and not loaded.worker.alive:
            loaded = None
        if loaded is None or loaded.key != key or fresh:
            worker = loaded.worker if loaded is not None else self.start()
            try:
                with contextlib.suppress(Phi3Error):  # an engine that cannot be closed has a test of its own
                    worker.call("close", limit_s=LIMIT_S)
                given = (worker, artifact, offer.device, self.options, purpose)
                more: dict[str, Any] = {"prompt_tokens": prompt_tokens, "tokenizer": self.source(name).path}
                loaded = LoadedEngine.load(*given, key=key, progress=self.told, **more)
            except BaseException:
                worker.kill()
                raise
        self._loaded = loaded
        return loaded

    def original(self, name: str) -> Checkpoint:
        """Return the original weights of a model."""
        path = self.source(name).path
        return self.once(("original", name), lambda: Checkpoint.open(path))

    def reference(self, name: str, ids: Sequence[int]) -> npt.NDArray[Any]:
        """Return core's logits after each of ``ids``, ``[ids, vocabulary]``."""
        return self.once(("reference", name, tuple(ids)), lambda: forward.logits(self.original(name), ids))
