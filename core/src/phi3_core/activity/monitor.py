"""Watch the engine of a model while it answers, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .meter import PERIOD_S, Meter
from .values import Activity, Mean

if TYPE_CHECKING:
    from typing_extensions import Self

_LONGEST_END_S = 2.0


class Monitor:
    """Measures from entering a ``with`` statement to leaving it.

    Nothing is measured in the thread that reads the answer.

    Args:
        process: returns the id of the engine's process; None without an engine. If another engine takes over, the
            measurement begins again.
        show: called each second with the activity since the last call.
        period_s: the seconds between two calls.
    """

    def __init__(
        self,
        process: Callable[[], int | None],
        show: Callable[[Activity], object] | None = None,
        *,
        period_s: float = PERIOD_S,
    ) -> None:
        self._process, self._show, self._period_s = process, show, period_s
        self._mean = Mean()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="phi3-activity", daemon=True)

    @property
    def result(self) -> Activity:
        """The mean activity, after the end."""
        return self._mean.result

    def _run(self) -> None:
        meter = Meter(self._process())
        over = False
        while not over:
            over = self._end.wait(self._period_s)
            process = self._process()
            if process is not None and process != meter.process:
                meter, self._mean = Meter(process), Mean()
            elif over or self._show is not None:
                activity = meter.read()
                self._mean.add(activity)
                if self._show is not None and not over:
                    self._show(activity)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        # A driver may take long to answer: its figures are not waited for.
        self._thread.join(_LONGEST_END_S)
