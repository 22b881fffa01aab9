"""The settings of a server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen, validators

from phi3_core.errors import UsageError


@frozen(kw_only=True)
class ServerSettings:
    """What a server allows, and for how long."""

    host: str = "127.0.0.1"
    """The address that it listens on."""
    port: int = 8000
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
    own_token: str | None = field(default=None, repr=False)
    """What the same user's programs state instead of the key; None for none."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages, besides the server's own, that may ask it."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the header ``Host``, besides the address that it listens on and those of loopback."""
    max_body_bytes: int = 8 * 2**20
    """The largest body of a request."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def check(self) -> None:
        """Check what could harm.

        Raises:
            UsageError: others could reach the server without a key, or what is allowed is no origin.
        """
        if not self.is_local and self.api_key is None:
            raise UsageError(
                f"others could reach the server at {self.host}, and nobody would have to state a key",
                hint="--api-key-file FILE names one, or leave --host out",
            )
        for origin in self.allowed_origins:
            parts = urlsplit(origin)
            if origin != "null" and (not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}"):
                raise UsageError(f"{origin!r} is no origin", hint="such as http://localhost:3000, without a path")
