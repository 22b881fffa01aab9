"""The settings of a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, validators

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""The addresses that only this machine reaches."""
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


@frozen(kw_only=True)
class ServerSettings:
    """What a server allows, and for how long."""

    host: str = DEFAULT_HOST
    """The address that it listens on."""
    port: int = DEFAULT_PORT
    models: tuple[str, ...] = field(validator=validators.min_len(1))
    """The models named at the start, as ``--model`` takes them; the first is loaded before the server answers."""
    defaults: Mapping[str, Any] = field(factory=dict)
    """Options for requests that do not state them; see :class:`~phi3_core.replies.GenerationOptions`."""
    max_waiting: int = 64
    """How many answers may wait for each model."""
    keep_alive_s: float | None = 300.0
    """Seconds after which a model that nobody asks is unloaded; None for never."""
    grace_s: float = 30.0
    """Seconds that running answers get when the server is stopped."""
    api_key: str | None = field(default=None, repr=False)
    """The key that every request states; None for none."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages, besides the server's own, that may ask it."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the header ``Host``, besides the address that it listens on and those of loopback."""
    max_body_bytes: int = 8 * 2**20
    """The largest body of a request."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK
