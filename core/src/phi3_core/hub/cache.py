"""The cache of huggingface_hub on this machine: repositories that other programs have downloaded.

::

    models--OWNER--NAME/
        refs/<branch or tag>       the commit it pointed to when it was downloaded
        blobs/<hash>               the files, under their hash: SHA-256, or git's hash for small ones
        snapshots/<commit>/...     links to the blobs; the files themselves where a system has no links

It is only read.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from attrs import evolve, frozen

from phi3_core.disk import reason
from phi3_core.errors import ModelError

from . import contents
from .snapshot import RemoteFile, Snapshot, requested

logger = logging.getLogger("phi3_core")

_PREFIX = "models--"
_TOKENIZER = "tokenizer.json"
_WEIGHTS = "*.safetensors, *.onnx or openvino_*.bin"
_LARGEST_INDEX = 2**26
_ONNX_LOCATION = re.compile(rb"\n\x08location\x12[\x00-\x7f]")
"""Start of the entry of an ONNX graph that names a file with weights, up to the length of the name, which follows."""


def root() -> Path | None:
    """Return the folder of the cache, by the variables that huggingface_hub reads; None if there is no home folder."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{home}/huggingface"
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    try:
        return Path(os.path.expandvars(given)).expanduser().absolute()
    except (RuntimeError, OSError):
        return None


def repository_name(folder: Path) -> str | None:
    """Return the repository whose folder in a cache this is, or None. It may have no snapshot yet."""
    if not folder.name.startswith(_PREFIX) or not any((folder / part).is_dir() for part in ("snapshots", "blobs")):
        return None
    return folder.name[len(_PREFIX) :].replace("--", "/", 1)


@frozen(kw_only=True)
class CachedSnapshot:
    """A commit of a repository in the cache; some of its files may be missing."""

    repository: str
    commit: str
    path: Path
    """The folder of the commit, in ``snapshots``."""

    def snapshot(self, path: str) -> Snapshot:
        """Return the snapshot with the files that are in the cache, for the model at ``path``.

        Raises:
            NotOnHubError: ``path`` is neither a folder nor a GGUF file.
        """
        files = tuple(sorted(self._files(), key=lambda file: file.name))
        folder, gguf = requested(self.repository, self.commit, path, [file.name for file in files])
        return Snapshot(repository=self.repository, commit=self.commit, folder=folder, gguf=gguf, files=files)

    def lacks(self, path: str) -> list[str]:
        """Return the files that the model at ``path``, a folder or GGUF file, needs but the cache lacks."""
        names = [file.name for file in self._files()]
        if contents.is_gguf(path):
            return [name for name in contents.parts(path) if name not in names]
        if path in names:
            return []  # another file, of which snapshot() says so
        lacking = contents.missing(names, path, dict(self._indexes(names)), absent=set(self._names()) - set(names))
        prefix = f"{path}/" if path else ""
        if not lacking and path not in contents.weight_folders(names):
            inner = [name for name in names if name.startswith(prefix)]
            # What can be named instead is said by whoever selects the files.
            return [] if contents.choices(inner) else [f"{prefix}{_WEIGHTS}"]
        for name in names:
            if contents.folder_of(name) == path and name.endswith(".onnx"):
                lacking += [
                    prefix + data
                    for data in _external_data(self.path / name)
                    if prefix + data not in {*names, *lacking}
                ]
        if not {f"{prefix}{_TOKENIZER}", _TOKENIZER} & set(names):
            lacking.append(f"{prefix}{_TOKENIZER}")
        return lacking

    def holds(self, path: str) -> bool:
        """Return whether there is a model at ``path``, a folder or GGUF file, and no file of it is missing."""
        return path in contents.choices(file.name for file in self._files()) and not self.lacks(path)

    def _indexes(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            if name.endswith(".safetensors.index.json"):
                with contextlib.suppress(OSError):
                    if (self.path / name).stat().st_size <= _LARGEST_INDEX:
                        yield name, (self.path / name).read_bytes()

    def _names(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.path):
            yield from (Path(folder, name).relative_to(self.path).as_posix() for name in names)

    def _files(self) -> Iterator[RemoteFile]:
        for name in self._names():
            file = self.path / name
            with contextlib.suppress(OSError):  # a link to a blob that is gone
                size = file.stat().st_size
                blob = file.readlink().name if file.is_symlink() else ""
                yield RemoteFile(
                    name=name,
                    size=size,
                    sha256=blob if re.fullmatch("[0-9a-f]{64}", blob) else None,
                    git_oid=blob if re.fullmatch("[0-9a-f]{40}", blob) else None,
                )


def find(repository: str, revision: str | None) -> CachedSnapshot | None:
    """Return a repository's snapshot in the cache, or None.

    Without a revision it is that of the branch ``main`` or, if no branch was recorded, the only one.
    """
    try:
        folder = folder_of(repository)
    except OSError as error:
        logger.info("the hub's cache %s cannot be read: %s", root(), reason(error))
        return None
    return None if folder is None else choose(folder, revision, repository)


def choose(folder: Path, revision: str | None, repository: str) -> CachedSnapshot | None:
    """Return the snapshot of a revision in a repository's folder of a cache; see :func:`find`."""
    try:
        there = _commits(folder)
        commit = _commit(folder, revision or "main")
    except OSError as error:
        logger.info("the hub's cache %s cannot be read: %s", folder, reason(error))
        return None
    if commit is None and revision is not None:
        starting = [name for name in there if len(revision) >= 7 and name.startswith(revision.lower())]
        commit = starting[0] if len(starting) == 1 else None
    if commit is None and revision is None and len(there) == 1:
        commit = there[0]
    if commit not in there:
        return None
    return CachedSnapshot(repository=repository, commit=str(commit), path=folder / "snapshots" / str(commit))


def other_whole(held: CachedSnapshot, path: str) -> CachedSnapshot | None:
    """Return the newest other snapshot of a repository that has all files of the model at ``path``, or None.

    ``main`` may point to a commit of which another program has only looked at the tokenizer.
    """
    others: list[CachedSnapshot] = []
    with contextlib.suppress(OSError):
        folders = [folder for folder in held.path.parent.iterdir() if folder.is_dir() and folder != held.path]
        folders.sort(key=lambda folder: (folder.stat().st_mtime, folder.name), reverse=True)
        others = [evolve(held, commit=folder.name, path=folder) for folder in folders]
    return next((other for other in others if other.holds(path)), None)


def unfinished(folder: Path) -> tuple[Path, str] | None:
    """Return a file that the hub's client has not fetched to its end, and how to go on; None if there is no such file.

    Args:
        folder: a snapshot in a cache, or a folder that files were downloaded into (``hf download --local-dir``).
    """
    repository = repository_name(folder.parent.parent) if folder.parent.name == "snapshots" else None
    place = folder / ".cache" / "huggingface" / "download" if repository is None else folder.parent.parent / "blobs"
    with contextlib.suppress(OSError):
        found = min(place.rglob("*.incomplete"), default=None)
        if found is not None:
            into = f"hf download OWNER/NAME --local-dir {folder.as_posix()}"
            return found, into if repository is None else f"phi3 models pull {repository}"
    return None


def commits(repository: str) -> list[str]:
    """Return the commits of a repository that are in the cache."""
    with contextlib.suppress(OSError):
        folder = folder_of(repository)
        return [] if folder is None else _commits(folder)
    return []


def _commits(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "snapshots").iterdir() if each.is_dir())


def copies(repository: str, commit: str, file: RemoteFile) -> Iterator[Path]:
    """Yield files of the cache that may be the same as a file of the hub; their content is yet to be compared."""
    folder, there = None, []
    with contextlib.suppress(OSError):
        folder = folder_of(repository)
        there = _commits(folder) if folder else []
    if folder is None:
        return
    hashed = file.sha256 or file.git_oid
    places = [folder / "blobs" / hashed] if hashed else []
    places += [
        folder / "snapshots" / each / file.name
        for each in sorted(there, key=lambda name: name != commit)
        if hashed or each == commit
    ]
    seen = set()
    for place in places:
        with contextlib.suppress(OSError, RuntimeError):
            real = place.resolve(strict=True)
            if real not in seen and real.is_file() and file.size in {None, real.stat().st_size}:
                seen.add(real)
                yield real


def path_in_cache(path: Path) -> CachedSnapshot | None:
    """Return the snapshot that is meant by a repository's folder in a cache, or by a folder or file that belongs to it.

    None if the path is not part of a cache, or is in a snapshot already.

    Raises:
        ModelError: no snapshot or several could be meant; the hint names one.
    """
    for folder in (path, *path.parents):
        repository = repository_name(folder)
        if repository is not None:
            break
    else:
        return None
    inner = path.relative_to(folder).parts
    is_ref = inner[:1] == ("refs",) and path.is_file()
    if (inner[:1] == ("snapshots",) and len(inner) > 1) or (path.is_file() and not is_ref):
        return None
    revision = "/".join(inner[1:]) if is_ref else None
    found = choose(folder, revision, repository)
    if found is None:
        there: list[str] = []
        with contextlib.suppress(OSError):
            there = _commits(folder)
        if not there:
            raise ModelError(f"{folder} holds no snapshot of {repository}", hint=f"phi3 models pull {repository}")
        hint = f"name one of them: {folder / 'snapshots' / there[0]}"
        raise ModelError(f"{folder} holds several snapshots: {contents.shown(there)}", hint=hint)
    if not is_ref and (lacking := found.lacks("")) and (other := other_whole(found, "")) is not None:
        logger.info("%s lacks %s; using %s", found.path, contents.shown(lacking), other.path)
        return other
    return found


def folder_of(repository: str) -> Path | None:
    """Return a repository's folder in the cache, or None. The hub does not tell names apart that differ by case only.

    Raises:
        OSError: the cache exists, but cannot be read.
    """
    top = root()
    if top is None or not top.exists():
        return None
    name = _PREFIX + repository.replace("/", "--")
    found = [each for each in top.iterdir() if each.name.casefold() == name.casefold() and repository_name(each)]
    return min(found, key=lambda each: each.name != name, default=None)


def _commit(folder: Path, revision: str) -> str | None:
    """Return the commit that a revision pointed to when it was downloaded; a commit stands for itself."""
    if (folder / "snapshots" / revision).is_dir():
        return revision
    try:
        return (folder / "refs" / revision).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return None


def _external_data(file: Path) -> list[str]:
    """Return the names of the files that hold the weights of an ONNX graph."""
    with (
        contextlib.suppress(OSError, ValueError),  # ValueError: it is empty
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text,
    ):
        ends = [(found.end(), text[found.end() - 1]) for found in _ONNX_LOCATION.finditer(text)]
        return sorted({text[at : at + size].decode(errors="replace") for at, size in ends})
    return []
