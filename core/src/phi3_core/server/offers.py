"""Which models requests may name: those named at the start, and what is in the store.

Nothing that a request states is looked up as a path, an address or a repository: it is compared with known names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from phi3_core.errors import UsageError
from phi3_core.models.ref import look_up
from phi3_core.store.entry import folder_bytes

if TYPE_CHECKING:
    from phi3_core.models.ref import ModelRef
    from phi3_core.store.entry import Entry
    from phi3_core.store.store import Store


@frozen(kw_only=True)
class Offer:
    """A model that requests may name."""

    name: str
    word: str
    """What it is loaded from, as ``--model`` takes it."""
    is_stored: bool
    """Whether it is loaded from the store only, because nobody has named it at the start."""
    store_name: str
    """The name of its weights in the store, which no other model has."""
    size_bytes: int | None = None
    """About the size of its weights; None if it is not known."""


class Offers:
    """The models that a server may load.

    Args:
        words: the models named at the start, as ``--model`` takes them.
        store: the store, of which all artifacts may be asked for.

    Raises:
        ModelError: there is no such model.
        UsageError: two of them have one name.
    """

    def __init__(self, words: Sequence[str], store: Store) -> None:
        self._store = store
        self._named: dict[str, ModelRef] = {}
        self._words: dict[str, str] = {}
        for word in words:
            ref = look_up(word, store)
            if ref.name in self._named and self._named[ref.name] != ref:
                raise UsageError(f"two models are called {ref.name}", hint="rename one of the folders")
            self._named[ref.name] = ref
            self._words.setdefault(ref.name, word)

    def first(self) -> Offer:
        """Return the model that was named first."""
        return self._offer(next(iter(self._named)))

    def all(self) -> list[Offer]:
        """Return all models, those named at the start first."""
        return [offer for name in self.names() if (offer := self.find(name)) is not None]

    def names(self) -> list[str]:
        """Return the names of all models, those named at the start first."""
        stored = dict.fromkeys(entry.model for entry in self._artifacts())
        taken = {ref.store_name for ref in self._named.values()}
        return [*self._named, *(name for name in stored if name not in taken and name not in self._named)]

    def find(self, name: str) -> Offer | None:
        """Return the model of a name, or None if there is none."""
        if name in self._named:
            return self._offer(name)
        typed = next((known for known, word in self._words.items() if word == name), None)
        if typed is not None:
            return self._offer(typed)
        sizes = [entry.size_bytes for entry in self._artifacts() if entry.model == name]
        return Offer(name=name, store_name=name, word=name, is_stored=True, size_bytes=max(sizes)) if sizes else None

    def _offer(self, name: str) -> Offer:
        ref = self._named[name]
        sizes = [entry.size_bytes for entry in self._artifacts() if entry.model == ref.store_name]
        if not sizes and ref.path is not None and ref.form == "artifact":
            sizes = [folder_bytes(ref.path)]
        word, size = self._words[name], max(sizes, default=None)
        return Offer(name=name, store_name=ref.store_name, word=word, is_stored=False, size_bytes=size)

    def _artifacts(self) -> list[Entry]:
        return [each for each in self._store.entries() if each.backend is not None and not each.manifest.get("damaged")]
