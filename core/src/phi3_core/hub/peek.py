"""The beginning of a file of a repository, which tells what the file is before gigabytes are fetched."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from attrs import frozen

from phi3_core.checkpoint import safetensors_header
from phi3_core.checkpoint.gguf import Gguf
from phi3_core.checkpoint.gguf_header import read_header_of

from . import cache
from .client import BLOCK, HubClient, offline_hint, retrying
from .refusals import TransientError
from .snapshot import RemoteFile, Snapshot

T = TypeVar("T")


def gguf_header(snapshot: Snapshot, file: RemoteFile, *, offline: bool) -> Gguf | None:
    """Return the content of a GGUF file's header. Of a file in parts, this is the given part's.

    Returns:
        None if the hub is not to be asked.

    Raises:
        ModelError: the header is damaged, or the hub does not deliver it.
    """
    name = PurePosixPath(snapshot.repository, file.name)

    def parse(stream: BinaryIO) -> Gguf:
        metadata, tensors = read_header_of(stream, name, file.size)
        return Gguf(path=name, metadata=metadata, tensors=tensors)

    return _read_start(snapshot, file, parse, offline=offline)


@frozen(kw_only=True)
class RemoteTensor:
    """A tensor in a safetensors file, as the file's header describes it."""

    name: str
    file: PurePosixPath
    dtype: str
    shape: tuple[int, ...]

    def is_zero(self) -> bool:
        """Return True: the values are unknown, so that they may be zero."""
        return True


def tensors(snapshot: Snapshot, file: RemoteFile, *, offline: bool) -> Mapping[str, RemoteTensor] | None:
    """Return the tensors in a safetensors file by name.

    Returns:
        None if the file does not begin with a header, or the hub is not to be asked.

    Raises:
        ModelError: the header does not fit the file, or the hub does not deliver it.
    """
    path = PurePosixPath(snapshot.repository, file.name)

    def parse(stream: BinaryIO) -> Mapping[str, RemoteTensor] | None:
        try:
            header, start = safetensors_header.read_header_of(stream, file.size)
        except ValueError:
            return None
        spans = safetensors_header.read_spans(path, header, file.size - start)
        return {
            name: RemoteTensor(name=name, file=path, dtype=dtype, shape=shape)
            for name, (dtype, shape, _, _) in spans.items()
        }

    return _read_start(snapshot, file, parse, offline=offline)


def _read_start(snapshot: Snapshot, file: RemoteFile, parse: Callable[[BinaryIO], T], *, offline: bool) -> T | None:
    """Return what ``parse`` makes of the beginning of a file, from the hub's own cache or from the hub."""
    for copy in cache.copies(snapshot.repository, snapshot.commit, file):
        with copy.open("rb") as stream:
            return parse(stream)
    if offline_hint(offline) is not None:
        return None
    client = HubClient(snapshot.repository, snapshot.commit, offline=offline)

    def ask() -> T:
        with client.read(file.name, 0) as body:
            return parse(cast("BinaryIO", io.BufferedReader(_Blocks(body.blocks, file), BLOCK)))

    return retrying(ask)


class _Blocks(io.RawIOBase):
    """A file that arrives in blocks, and is read from its beginning."""

    def __init__(self, blocks: Iterable[bytes], file: RemoteFile) -> None:
        super().__init__()
        self._blocks = iter(blocks)
        self._file = file
        self._rest = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                self._check_end()
                return 0
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count

    def _check_end(self) -> None:
        if self._position < self._file.size:
            raise TransientError(f"the connection ended in the middle of {self._file.name}", hint="try again later")
