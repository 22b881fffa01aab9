"""One ``generate`` of a worker, as the host reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from phi3_core.config import is_limit_set, time_limit
from phi3_core.pending import TICK_S

from .call import Result

if TYPE_CHECKING:
    from phi3_core.pending import Awaited

    from .call import Call, Timing
    from .calls import Calls

_CANCEL_S = 0.5
_LONGEST_CANCEL_S = 2.0


class Generation(Iterator["int | Awaited"]):
    """An iterator over the ids of an answer. While there is none, it yields what to wait for.

    Raises:
        BackendError: the generation failed, exceeded a time limit, or the process died.
        Phi3Error: another error that the plugin raised.
    """

    def __init__(self, calls: Calls, call: Call, limits_s: tuple[float | None, float | None] = (None, None)) -> None:
        self._calls = calls
        self._call = call
        self._over = False
        # The prefill can take minutes on a slow device; a token is faster.
        prefill_s, token_s = limits_s
        call.limit(_smaller("prefill", prefill_s), next_s=_smaller("token", token_s))

    def __next__(self) -> int | Awaited:
        if self._over:
            raise StopIteration
        if not self._call.arrived:
            return self._call
        item = self._call.arrived.popleft()
        if isinstance(item, int):
            return item
        self._over = True
        if isinstance(item, Result):
            raise StopIteration
        raise item

    @property
    def timing(self) -> Timing:
        """When the ids have arrived so far, whoever reads them."""
        return self._call.timing

    def ids(self) -> Iterator[int]:
        """Yield the ids, and block until each has arrived. The iterator's end, early or not, closes this one."""
        try:
            for item in self:
                if isinstance(item, int):
                    yield item
                else:
                    item.wait(TICK_S)
        finally:
            self.close()

    def close(self) -> None:
        """Cancel the generation, if it has not ended, and wait until it has; see :meth:`Calls.cancel`."""
        self._over = True
        # Engines stop between tokens, so slow ones get more time: loading them again would take longer.
        self._calls.cancel(self._call, min(max(_CANCEL_S, 3 * self._call.slowest_s), _LONGEST_CANCEL_S))

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the worker has ended the generation, in any thread; perhaps at once, or twice."""
        self._call.at_end(callback)


def _smaller(name: str, seconds: float | None) -> float:
    """Return a time limit of the configuration; ``seconds`` if that is less, and the user has not set the limit."""
    limit_s = time_limit(name)
    return limit_s if seconds is None or is_limit_set(name) else min(limit_s, seconds)
