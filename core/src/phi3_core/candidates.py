"""The candidates of one request, tried one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from .errors import BackendError, NoArtifactError, NoDeviceError, Phi3Error, StoreError, TooLargeError
from .plugin import name_device
from .replies import Attempt
from .selection import Candidate
from .values import Device

logger = logging.getLogger("phi3_core")

T = TypeVar("T")

_OF_THE_DEVICE = (BackendError, NoArtifactError, TooLargeError, StoreError)
"""Errors that another device may avoid."""


class CandidateQueue:
    """The candidates of a request that have not been tried, best first, and the failed attempts."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self._left = iter(candidates)
        self.attempts: list[Attempt] = []
        """The failed attempts, in order."""

    def first(
        self, step: Callable[[Candidate], T], failure: Phi3Error | None = None, *, again: Candidate | None = None
    ) -> T:
        """Return the result of ``step`` for the first candidate that it succeeds for.

        Each failure is logged, with the candidate that is tried next.

        Args:
            step: called with one candidate after the other.
            failure: the error of the device used so far, if any.
            again: that device, to be tried once more if no candidate is left.

        Raises:
            Phi3Error: the last failure, if no candidate is left. Errors that another device cannot avoid are raised
                at once.
        """
        for candidate in self._left:
            if failure is not None:
                logger.warning("%s; continuing with %s", failure.message, candidate.device)
            try:
                return step(candidate)
            except _OF_THE_DEVICE as error:
                failure = self.record_failure(error, candidate.device)
        if again is None or failure is None:
            raise failure or NoDeviceError("no device is left to try", hint="phi3 devices")
        logger.warning("%s; starting %s again", failure.message, again.device)
        try:
            return step(again)
        except _OF_THE_DEVICE as error:
            self.record_failure(error, again.device)
            raise

    def record_failure(self, error: Phi3Error, device: Device) -> Phi3Error:
        """Add a failed attempt, and return the error with the device in its message."""
        self.attempts.append(failed_attempt(error, device))
        return error


def failed_attempt(error: Phi3Error, device: Device) -> Attempt:
    """Return a failed attempt, and put the device into the error's message."""
    if isinstance(error, (BackendError, StoreError)):
        name_device(error, device)
    return Attempt(device=str(device), outcome=error.message)
