"""A proxy, and the request for a tunnel through it."""

from __future__ import annotations

from base64 import b64encode
from typing import final

from attrs import field, frozen

from kaleden._http._h1._pool import Origin
from kaleden._http._transport import Tls
from kaleden._version import __version__


@final
@frozen
class Proxy:
    """An http or https proxy.

    Attributes:
        url: its URL, without credentials.
        origin: its address.
        headers: header lines that only the proxy gets, each with its line end.
        tls: the TLS of an https proxy; None for an http proxy.
    """

    url: str
    origin: Origin
    headers: str = field(default="", repr=False)
    tls: Tls | None = field(default=None, repr=False)

    @property
    def has_credentials(self) -> bool:
        """Whether a user and a password are sent."""
        return "proxy-authorization:" in self.headers.lower()

    def format_connect(self, origin: Origin) -> bytes:
        """Return the request for a tunnel to *origin* (RFC 9110 §9.3.6)."""
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        authority = f"{host}:{origin.port}"
        lines = (
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
            f"User-Agent: kaleden/{__version__}\r\n{self.headers}\r\n"
        )
        return lines.encode("latin-1")


def format_credentials(user: bytes, password: bytes) -> str:
    """Return the header line for a user and a password (RFC 7617)."""
    return f"Proxy-Authorization: Basic {b64encode(b'%b:%b' % (user, password)).decode()}\r\n"
