"""Get a model in a form that a device's backend loads: from the store, published, or quantized from the source."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from phi3_core.errors import ModelError
from phi3_core.values import Artifact, Device, Progress, Published, Recipe, Source, to_plain

from . import gguf_file, manifest, sample
from .catalogue import CATALOGUE
from .lookup import Reference
from .store import Store

ASK_LIMIT_S = 30.0
QUANTIZE_SILENCE_S = 900.0
PACKAGE = "package:"
_TEXT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


class Unobtainable(ModelError):  # noqa: N818 - what it says about a device, not a failure of its own
    """The model cannot be had in a form that this device loads. It may be for another."""


class Asked(Protocol):
    """The worker of the device's backend, as far as obtaining goes."""

    hooks: tuple[str, ...]

    def call(self, verb: str, *, limit_s: float, progress: Progress | None = None, **arguments: object) -> Any: ...


@frozen(kw_only=True)
class Obtained:
    """Weights for the backend, and where core finds what it needs for the text."""

    artifact: Artifact
    text: Path
    """The folder with the tokenizer and the chat template."""
    how: str
    """Where the weights came from, in words."""


def obtain(
    reference: Reference,
    device: Device,
    precisions: tuple[str, ...],
    store: Store,
    *,
    worker: Asked,
    progress: Progress,
) -> Obtained:
    """Get ``reference`` for ``device`` in the first of ``precisions`` that can be had.

    Raises:
        Unobtainable: not in a form that this device's backend loads.
        ModelError: not at all: unknown, damaged, or no room for it.
    """
    errand = _Errand(
        reference=reference, device=device, precisions=precisions, store=store, worker=worker, progress=progress
    )
    if reference.form == "artifact":
        return errand.local()
    return stored(reference, device, precisions, store) or errand.published() or errand.quantized()


def stored(reference: Reference, device: Device, precisions: tuple[str, ...], store: Store) -> Obtained | None:
    """What :func:`obtain` finds without asking the backend anything, so that loading can begin at once."""
    if reference.form == "artifact":
        return None
    for precision in precisions:
        artifact = store.artifact(_name(reference), device.backend, precision)
        if artifact is not None:
            return Obtained(artifact=artifact, text=artifact.path, how="from the store")
    return None


@frozen(kw_only=True)
class _Errand:
    """One model to be had for one device, and those who help with it."""

    reference: Reference
    device: Device
    precisions: tuple[str, ...]
    store: Store
    worker: Asked
    progress: Progress

    def published(self) -> Obtained | None:
        """Weights that somebody made ready, if the backend knows of any."""
        name = self.reference.name
        if self.reference.form != "named" or name not in CATALOGUE:
            return None
        for precision in self.precisions:
            answer = self.worker.call(
                "published", limit_s=ASK_LIMIT_S, model=name, device=self.device, precision=precision
            )
            repository = Published(**answer).repository if answer is not None else ""
            if not repository.startswith(PACKAGE):
                continue  # repositories of the hub are not fetched yet
            package = repository[len(PACKAGE) :]

            def fill(folder: Path, package: str = package) -> Mapping[str, Any]:
                return _from_package(package, folder, self.progress)

            artifact = self.store.make_artifact(name, self.device.backend, precision, fill)
            return Obtained(artifact=artifact, text=artifact.path, how=f"from the package {package}")
        return None

    def quantized(self) -> Obtained:
        """Weights that the backend makes from the original ones."""
        reference, device = self.reference, self.device
        if "quantize" not in self.worker.hooks and (reference.form == "source" or reference.name == sample.NAME):
            raise Unobtainable(
                f"{reference.name} is not to be had for {device} at {', '.join(self.precisions)}: nothing is published "
                f"for it, and the backend does not quantize",
                hint="try another --precision or --device",
            )
        source = source_of(reference, self.store, self.progress)
        recipe = Recipe(precision=self.precisions[0])

        def fill(folder: Path) -> Mapping[str, Any]:
            self.worker.call(
                "quantize",
                limit_s=QUANTIZE_SILENCE_S,
                progress=self.progress,
                source=source,
                device=device,
                recipe=recipe,
                output=folder,
            )
            for file in _TEXT_FILES:  # the text is core's business, whatever the backend kept
                if (source.path / file).is_file() and not (folder / file).exists():
                    shutil.copyfile(source.path / file, folder / file)
            return {"source": {"model": source.model, "revision": source.revision}, "recipe": to_plain(recipe)}

        artifact = self.store.make_artifact(_name(reference), device.backend, recipe.precision, fill)
        return Obtained(artifact=artifact, text=artifact.path, how="quantized from the original weights")

    def local(self) -> Obtained:
        """The user's own files, where they are."""
        path, device = self.reference.path, self.device
        if path is None:
            raise ModelError(f"{self.reference.name} has no path")
        content = manifest.read(path) if path.is_dir() else None
        if content is not None:
            if content.get("backend") != device.backend:
                raise Unobtainable(f"{path} holds weights for {content.get('backend')}, not for {device.backend}")
            manifest.check_sizes(path, content)
            precision = str(content.get("precision"))
        else:
            if path.suffix.lower() == ".gguf":
                gguf_file.check(path)
            found = self.worker.call("recognize", limit_s=ASK_LIMIT_S, path=path)
            if found is None:
                hint = "phi3 models list shows what there is"
                raise Unobtainable(f"{device.backend} finds no weights in {path} that it can load", hint=hint)
            precision = str(found)
            content = {"digest": _fingerprint(path)}
        if precision not in self.precisions:
            raise Unobtainable(
                f"{path} holds {precision} weights, and {device} is to run {', '.join(self.precisions)}",
                hint="leave --precision out",
            )
        text = path
        if path.is_file():
            text = _gguf_text(path, content, self.store)
            content = {**(manifest.read(text) or {}), **content}
        artifact = Artifact(path=path, backend=device.backend, precision=precision, manifest=content)
        return Obtained(artifact=artifact, text=text, how=f"from {path}")


def _from_package(package: str, folder: Path, progress: Progress) -> dict[str, Any]:
    if package != sample.PACKAGE:
        raise ModelError(f"nothing is known about weights in the package {package}")
    file = sample.package_file()
    gguf = gguf_file.Gguf.open(file)
    progress("reading the tokenizer")
    gguf.write_tokenizer(folder)
    _link(file, folder / file.name)
    return {
        "source": {"repository": f"{PACKAGE}{package}", "revision": sample.revision()},
        "context_length": gguf.describe().context_length,
    }


def _link(file: Path, link: Path) -> None:
    """A second name for a file if the disk allows it, else a copy."""
    try:
        os.link(file, link)
    except OSError:
        shutil.copyfile(file, link)


def source_of(reference: Reference, store: Store, progress: Progress) -> Source:
    """The original weights of a model.

    Raises:
        ModelError: they cannot be had.
    """
    if reference.path is not None:
        return Source(path=reference.path, model=_name(reference))
    found = store.source(reference.name)
    if found is not None:
        return found
    if reference.name == sample.NAME:

        def fill(folder: Path) -> Mapping[str, Any]:
            sample.build_source(sample.package_file(), folder, progress)
            return {"revision": sample.revision(), "source": {"repository": f"{PACKAGE}{sample.PACKAGE}"}}

        return store.make_source(sample.NAME, fill)
    raise ModelError(
        f"the weights of {reference.name} are not in the store, and this version does not download",
        hint="try --model sample, or name a folder with the weights",
    )


def take_in(reference: Reference, found: Obtained, store: Store) -> Artifact:
    """Copy the user's own files into the store, where they are known by their name."""
    artifact = found.artifact

    def fill(folder: Path) -> Mapping[str, Any]:
        sources = [artifact.path] if artifact.path.is_file() else sorted(artifact.path.iterdir())
        for file in (*sources, *(sorted(found.text.iterdir()) if found.text != artifact.path else ())):
            if file.is_file() and file.name != manifest.NAME:
                shutil.copyfile(file, folder / file.name)
        kept = ("source", "recipe", "quality", "context_length")
        return {key: artifact.manifest[key] for key in kept if key in artifact.manifest}

    return store.make_artifact(reference.name, artifact.backend, artifact.precision, fill)


def _gguf_text(file: Path, content: Mapping[str, Any], store: Store) -> Path:
    def fill(folder: Path) -> Mapping[str, Any]:
        gguf = gguf_file.Gguf.open(file)
        gguf.write_tokenizer(folder)
        return {"context_length": gguf.describe().context_length}

    return store.derive(content["digest"], "core-text", fill)


def _fingerprint(path: Path) -> str:
    """A word that changes when a file, or a file of a folder, does; without reading gigabytes."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape"))
    for file in files:
        with contextlib.suppress(OSError):
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _name(reference: Reference) -> str:
    """The name under which the store keeps what is made of a model."""
    if reference.path is None:
        return reference.name
    return f"{reference.name}-{_fingerprint(reference.path)[:8]}"
