"""Let a debugger attach to a worker before it calls a hook: ``PHI3_DEBUG=BACKEND:HOOK``."""

from __future__ import annotations

import os
from collections.abc import Callable

from phi3_core.config import debugged_hook
from phi3_core.errors import UsageError


class Debugger:
    """Waits for a debugger the first time that the backend's hook is called.

    Args:
        notify: sends a sentence to the user.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._hook = debugged_hook()
        self._waited = False

    def wait(self, backend: str, hook: str) -> None:
        """Wait for a debugger if the user wants to debug this hook of this backend.

        Raises:
            UsageError: debugpy is not installed.
        """
        if self._hook != (backend, hook) or self._waited:
            return
        self._waited = True
        try:
            import debugpy  # start-up: needed only for debugging
        except ImportError as error:
            raise UsageError("PHI3_DEBUG needs debugpy", hint="pip install debugpy") from error
        host, port = debugpy.listen(("127.0.0.1", 0))
        self._notify(f"process {os.getpid()} waits for a debugger at {host}:{port} before it calls {hook}")
        debugpy.wait_for_client()
