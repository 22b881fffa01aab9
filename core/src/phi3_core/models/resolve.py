"""Get a model in a form that a device's backend loads: from the store, published, or quantized from the source."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from phi3_core.errors import ModelError
from phi3_core.hub.client import MissingError
from phi3_core.store.store import Store
from phi3_core.values import Progress, Published

from . import download_plan as plans
from . import local, quantizing, sample
from .catalogue import CATALOGUE
from .download_plan import Plan
from .obtained import Obtained, Unobtainable
from .request import Asked, Need
from .sources import PACKAGE, source_of

logger = logging.getLogger("phi3_core")

T = TypeVar("T")

ASK_LIMIT_S = 30.0


def stored(need: Need, store: Store) -> Obtained | None:
    """What :func:`obtain` finds without asking anybody, so that loading can begin at once."""
    if need.reference.form == "artifact":
        return None
    for precision in need.precisions:
        artifact = store.artifact(need.name, need.form(precision))
        if artifact is not None:
            return Obtained(artifact=artifact, text=artifact.path, how="from the store")
    return None


def obtain(
    need: Need, store: Store, *, worker: Asked, progress: Progress, offline: bool = False, update: bool = False
) -> Obtained:
    """Get a model for a device. ``update`` looks for a newer revision of one that is in the store.

    Raises:
        Unobtainable: not in a form that this device's backend loads.
        ModelError: not at all: unknown, damaged, out of reach, or no room for it.
    """
    errand = _Errand(need=need, store=store, worker=worker, progress=progress, offline=offline, update=update)
    path = need.reference.path
    if need.reference.form == "artifact" and path is not None:
        if need.recipe is not None:
            raise quantizing.no_original(need)
        return errand.local(path)
    if need.recipe is not None:
        quantizing.check(need.recipe)
        return errand.quantized()
    found = None if update else stored(need, store)
    return found or errand.published() or errand.quantized()


def plan(need: Need, store: Store, *, worker: Asked, offline: bool, update: bool) -> Plan:
    """What :func:`obtain` would download.

    Raises:
        Unobtainable, ModelError: as :func:`obtain`.
    """
    reference = need.reference
    if not update and (found := stored(need, store)) is not None:
        return Plan(words=f"nothing: it is in {found.artifact.path}")

    def planned(published: Published, _: str) -> Plan:
        if published.repository.startswith(PACKAGE):
            return Plan(words=f"nothing: it is in the installed package {published.repository[len(PACKAGE) :]}")
        return plans.for_repository(published.repository, published.revision, published.folder, offline=offline)

    if (found_plan := _first_published(need, worker, planned)) is not None:
        return found_plan
    if reference.form in {"named", "source"} and "quantize" not in worker.hooks:
        raise _no_form(need)
    return plans.for_source(reference, offline=offline)


def _first_published(need: Need, worker: Asked, take: Callable[[Published, str], T]) -> T | None:
    """What ``take`` makes of the first published weights that are where the backend says, and their precision."""
    if need.reference.form != "named" or need.name not in CATALOGUE:
        return None
    for precision in need.precisions:
        answer = worker.call("published", limit_s=ASK_LIMIT_S, model=need.name, device=need.device, precision=precision)
        if answer is None:
            continue
        try:
            return take(Published(**answer), precision)
        except MissingError as error:
            logger.warning("%s; looking for another way to get %s", error.message, need.name)
    return None


def _no_form(need: Need) -> Unobtainable:
    return Unobtainable(
        f"{need.reference.name} is not to be had for {need.device} at {', '.join(need.precisions)}: nothing is "
        f"published for it, and the backend does not quantize",
        hint="try another --precision or --device",
    )


@frozen(kw_only=True)
class _Errand:
    """One model to be had for one device, and those who help with it."""

    need: Need
    store: Store
    worker: Asked
    progress: Progress
    offline: bool
    update: bool

    def published(self) -> Obtained | None:
        """Weights that somebody made ready, if the backend knows of any."""
        return _first_published(self.need, self.worker, self._take)

    def _take(self, published: Published, precision: str) -> Obtained:
        if published.repository.startswith(PACKAGE):
            return self._from_package(published.repository[len(PACKAGE) :], precision)
        return self._from_hub(published, precision)

    def _from_package(self, package: str, precision: str) -> Obtained:
        if package != sample.PACKAGE:
            raise ModelError(f"nothing is known about weights in the package {package}")

        def fill(folder: Path) -> Mapping[str, Any]:
            from phi3_core.checkpoint.gguf import Gguf

            file = sample.package_file()
            gguf = Gguf.open(file)
            self.progress("reading the tokenizer")
            gguf.write_tokenizer(folder)
            _link(file, folder / file.name)
            return {
                "source": {"repository": f"{PACKAGE}{package}"},
                "revision": sample.revision(),
                "context_length": gguf.describe().context_length,
            }

        artifact = self.store.make_artifact(self.need.name, self.need.form(precision), fill)
        return Obtained(artifact=artifact, text=artifact.path, how=f"from the package {package}")

    def _from_hub(self, published: Published, precision: str) -> Obtained:
        from phi3_core.hub import fetch

        need = self.need
        old = self.store.artifact(need.name, need.form(precision))
        repository, folder = published.repository, published.folder
        snapshot, files = fetch.listed(repository, published.revision, folder, offline=self.offline)
        how = f"published as {repository}{'/' + folder if folder else ''} at {snapshot.commit[:12]}"
        if old is not None and old.manifest.get("revision") == snapshot.commit:
            return Obtained(artifact=old, text=old.path, how=f"{how}, which is the newest")

        def fill(target: Path) -> Mapping[str, Any]:
            facts = fetch.fill(snapshot, files, target, self.progress, offline=self.offline)
            found = self.worker.call("recognize", limit_s=ASK_LIMIT_S, path=target)
            if found != precision:
                fetch.forget(target)
                raise MissingError(f"{repository} holds {found or 'no'} weights for {need.device.backend}")
            return facts

        artifact = self.store.make_artifact(
            need.name, need.form(precision), fill, wanted=lambda found: found.get("revision") == snapshot.commit
        )
        return Obtained(artifact=artifact, text=artifact.path, how=how)

    def quantized(self) -> Obtained:
        """Weights that the backend makes from the original ones; a hub's folder may hold something else."""
        need = self.need
        if "quantize" not in self.worker.hooks and need.reference.form != "hub":
            raise _no_form(need)
        source = source_of(need.reference, self.store, self.progress, offline=self.offline, update=self.update)
        if not any(source.path.glob("*.safetensors")):
            if need.recipe is not None:
                raise quantizing.no_original(need)
            return self.local(source.path)
        return quantizing.quantize(need, source, self.store, worker=self.worker, progress=self.progress)

    def local(self, path: Path) -> Obtained:
        """The user's own files, or a folder of the hub's that needs no quantizing."""

        def recognize(path: Path) -> str | None:
            found = self.worker.call("recognize", limit_s=ASK_LIMIT_S, path=path)
            return None if found is None else str(found)

        return local.obtain(path, self.need.device, self.need.precisions, self.store, recognize=recognize)


def _link(file: Path, link: Path) -> None:
    """A second name for a file if the disk allows it, else a copy."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copyfile(file, link)
