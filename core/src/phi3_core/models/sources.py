"""Original weights: the user's folder, the store's, built from a package, or from the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from phi3_core.errors import ModelError
from phi3_core.store.store import Store
from phi3_core.values import Progress, Source

from . import local, sample
from .catalogue import CATALOGUE
from .ref import Reference

PACKAGE = "package:"
"""What stands before a Python package's name where a hub repository's name would be."""


def source_of(
    reference: Reference, store: Store, progress: Progress, *, offline: bool = False, update: bool = False
) -> Source:
    """The original weights of a model: the user's folder, the store's, built from a package, or from the hub.

    Raises:
        ModelError: they cannot be had.
    """
    if reference.path is not None:
        return Source(path=reference.path, model=reference.name, revision=local.fingerprint(reference.path)[:12])
    known = CATALOGUE.get(reference.name)
    repository = known.repository if known else reference.repository
    found = store.source(reference.name)
    if found is not None and not (update and repository):
        return found
    if reference.name == sample.NAME:

        def build(folder: Path) -> Mapping[str, Any]:
            sample.build_source(sample.package_file(), folder, progress)
            return {"revision": sample.revision(), "source": {"repository": f"{PACKAGE}{sample.PACKAGE}"}}

        return store.make_source(sample.NAME, build)
    if repository is None:
        hint = "phi3 models show tells what there is of it"
        raise ModelError(f"the original weights of {reference.name} are not in the store", hint=hint)
    from phi3_core.hub import fetch

    snapshot, files = fetch.listed(repository, None, "", offline=offline)
    if found is not None and found.revision == snapshot.commit:
        return found
    if known is None:
        fetch.check_family(snapshot, offline=offline)

    def fill(folder: Path) -> Mapping[str, Any]:
        return fetch.fill(snapshot, files, folder, progress, offline=offline)

    old = store.source_digest(reference.name)
    made = store.make_source(reference.name, fill, old=old)
    return evolve(made, revision=snapshot.commit)
