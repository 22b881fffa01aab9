"""The exceptions of phi3-core, as one tree.

::

    Phi3Error                      exit code 1   base class
    ├── UsageError                          2   the request is invalid
    │   └── PromptTooLongError              2   the prompt does not fit the context
    ├── QueueFullError                      1   too many answers are waiting for the model
    ├── NoDeviceError                       3   no installed backend offers a matching device
    ├── ModelError                          4   the model is unknown, cannot be obtained, or is damaged
    │   ├── NoArtifactError                 4   no artifact for this device; another device may have one
    │   ├── TooLargeError                   4   the model does not fit the device's memory
    │   ├── NotOnHubError                   4   the hub has no such repository, revision, folder or file
    │   └── StoreError                      4   the store cannot be read or written
    │       └── DiskFullError               4   a disk has too little free space
    └── BackendError                        5   a backend raised, died, timed out, or returned an invalid result
        ├── BackendDiedError                5   the worker process died, and the engine with it
        ├── OverrunError                    5   an engine went on after the end of an answer
        └── WrongAnswersError               5   a device gives wrong answers to known prompts

Plugins raise these too: the class name, message and hint are sent to the user's process. Any other exception of a
plugin arrives as :class:`BackendError`.
"""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False  # start-up: see phi3_core/__init__.py
if TYPE_CHECKING:
    from collections.abc import Iterator


class Phi3Error(Exception):
    """Base class of all errors.

    Args:
        message: one sentence, without a full stop.
        hint: what the user can do, or a command to run.
    """

    exit_code = 1
    """Exit code of the command line."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.last_lines: tuple[str, ...] = ()
        """The last lines that the worker process printed, including output of native code."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(Phi3Error):
    """The request is invalid: an unknown option, an unsuitable value, or a feature that the engine does not have."""

    exit_code = 2


class PromptTooLongError(UsageError):
    """The prompt does not fit the context, or leaves no room for an answer."""


class QueueFullError(Phi3Error):
    """As many answers as the model's ``max_waiting`` allows are waiting already."""


class NoDeviceError(Phi3Error):
    """No installed backend offers a device that matches the request."""

    exit_code = 3


class ModelError(Phi3Error):
    """The model is unknown, cannot be obtained, or is damaged."""

    exit_code = 4


class NoArtifactError(ModelError):
    """No artifact of the model can be loaded on this device. Another device may have one."""


class TooLargeError(ModelError):
    """The model does not fit the device's memory."""


class NotOnHubError(ModelError):
    """The hub does not have the requested repository, revision, folder or file."""


class StoreError(ModelError):
    """The store cannot be read or written."""


class DiskFullError(StoreError):
    """A disk has too little free space for the store or for another output."""


class BackendError(Phi3Error):
    """A backend raised an exception, died, exceeded a time limit, or returned an invalid result."""

    exit_code = 5


class BackendDiedError(BackendError):
    """The worker process of a backend died, and the engine with it."""


class OverrunError(BackendError):
    """An engine went on after the end of an answer, which is complete."""


class WrongAnswersError(BackendError):
    """A device gives wrong answers to prompts whose answers are known."""


_CROSSING: dict[str, type[Phi3Error]] = {
    kind.__name__: kind
    for kind in (
        *(UsageError, PromptTooLongError, NoDeviceError, BackendError, OverrunError),
        *(ModelError, NoArtifactError, TooLargeError, NotOnHubError, StoreError, DiskFullError),
    )
}


@contextlib.contextmanager
def as_usage_error(*, hint: str | None = None) -> Iterator[None]:
    """Convert a ``TypeError`` or ``ValueError`` of a value's validation to :class:`UsageError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # attrs' own validators append the attribute and the class to the arguments; those of core begin with the class,
        # which users do not know.
        words = str(error.args[0]) if error.args else str(error)
        kind, colon, rest = words.partition(": ")
        raise UsageError(rest if colon and kind.isidentifier() else words, hint=hint) from error


def from_wire(kind: str, message: str, hint: str | None) -> Phi3Error:
    """Return the exception for an error that a worker process reported.

    A class outside of the tree becomes :class:`BackendError`, with the class name in the message.
    """
    known = _CROSSING.get(kind)
    if known is None:
        return BackendError(f"{kind}: {message}" if message else kind, hint=hint)
    return known(message, hint=hint)
