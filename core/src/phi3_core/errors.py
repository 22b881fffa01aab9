"""Everything that can go wrong, as one tree.

::

    Phi3Error                      exit code 1   something nobody foresaw
    ├── UsageError                          2   the request cannot be carried out as it was put
    │   └── PromptTooLongError              2   more tokens than the model's context holds
    ├── NoDeviceError                       3   no installed backend offers a usable device
    ├── ModelError                          4   the model is unknown, cannot be obtained, or is damaged
    │   ├── NoArtifactError                 4   no form of it that this device loads; another device may load one
    │   ├── TooLargeError                   4   it does not fit the device's memory
    │   ├── NotOnHubError                   4   the hub answers, and does not have what was asked for
    │   └── StoreError                      4   the store cannot be read or written
    │       └── DiskFullError               4   a disk has too little free space
    └── BackendError                        5   a backend raised, died or stopped answering
        └── BackendDiedError                5   its process is gone, and the engine with it

Plugins raise these too: they cross the process boundary by their class name, message and hint.
Anything else that a plugin raises arrives as :class:`BackendError`.
"""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    from collections.abc import Iterator


class Phi3Error(Exception):
    """The root. ``message`` is one sentence without a full stop; ``hint`` is something that can be done or run."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.last_lines: tuple[str, ...] = ()
        """What a worker process, or native code in it, printed last."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(Phi3Error):
    """The request cannot be carried out as it was put."""

    exit_code = 2


class PromptTooLongError(UsageError):
    """The prompt has more tokens than the context leaves room for."""


class NoDeviceError(Phi3Error):
    """No installed backend offers a device that fits the request."""

    exit_code = 3


class ModelError(Phi3Error):
    """The model is unknown, cannot be obtained in a form that the device loads, or is damaged."""

    exit_code = 4


class NoArtifactError(ModelError):
    """The model is not available in a form that this device loads. Another device may load it."""


class TooLargeError(ModelError):
    """The model does not fit the device's memory."""


class NotOnHubError(ModelError):
    """The hub answers, and does not have the repository, revision, folder or file that was asked for."""


class StoreError(ModelError):
    """The store cannot be read or written."""


class DiskFullError(StoreError):
    """A disk has too little free space, for the store or for another file that was asked for."""


class BackendError(Phi3Error):
    """A backend raised, died, stopped answering, or answered nonsense."""

    exit_code = 5


class BackendDiedError(BackendError):
    """The backend's process is gone, and the engine in it."""


_CROSSING: dict[str, type[Phi3Error]] = {
    kind.__name__: kind
    for kind in (
        *(UsageError, PromptTooLongError, NoDeviceError, BackendError),
        *(ModelError, NoArtifactError, TooLargeError, NotOnHubError, StoreError, DiskFullError),
    )
}


@contextlib.contextmanager
def as_usage_error(*, hint: str | None = None) -> Iterator[None]:
    """Turn what a value object says about its arguments (``TypeError``, ``ValueError``) into a :class:`UsageError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # attrs puts the attribute and the class behind the sentence
        raise UsageError(str(error.args[0]) if error.args else str(error), hint=hint) from error


def from_wire(kind: str, message: str, hint: str | None) -> Phi3Error:
    """Rebuild an error that a worker process reported.

    Classes that are not part of the tree become :class:`BackendError`, with their name kept in the message.
    """
    known = _CROSSING.get(kind)
    if known is None:
        return BackendError(f"{kind}: {message}" if message else kind, hint=hint)
    return known(message, hint=hint)
