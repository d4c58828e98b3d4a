"""The interface between requests and the transports that send them."""

from __future__ import annotations

import ssl
from typing import Final, Protocol, final, runtime_checkable

from attrs import frozen

from kaleden._errors import FailureKind
from kaleden._wire import Request, Response

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to open a connection; a Skaha server accepts one at once, however busy it is."""

MAX_BODY: Final = 64 * 2**20
"""Bytes of one response, at most; only logs come near."""


MAX_OMITTED: Final = 1024
"""Times the bytes of a response that are kept at most, after which it counts as endless."""


def format_endless(max_body: int) -> str:
    """Return the end of a message about a response of which only the end was to be kept."""
    return f"longer than {MAX_OMITTED} times {max_body} bytes, and seems to be endless"


def format_too_long(max_body: int) -> str:
    """Return the end of a message about a response that is longer than *max_body*."""
    return f"longer than {max_body} bytes; max_body= of the session takes more"


class TransportError(Exception):
    """An exchange without a response.

    Args:
        kind: `CONNECT_FAILED`, `CONNECTION_LOST`, `TIMED_OUT` or `PROTOCOL`; `NOT_AUTHENTICATED` if
            there is no token or no valid certificate.
        message: a sentence for the user.
        sent: whether any part of the request may have reached the server.
        final: whether another attempt would fail in the same way, for example because a certificate
            is not trusted.
    """

    def __init__(self, kind: FailureKind, message: str, *, sent: bool, final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sent = sent
        self.final = final


@runtime_checkable
class Transport(Protocol):
    """Sends one request and returns its response.

    A transport does not retry, follow redirects, or judge a response by its status. It may be
    called from many tasks at once; the client calls it only from children of an anyio task group,
    and never from more of them than its ``concurrency``.
    """

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole response.

        Args:
            request: the request, relative to the server's base URL.

        Returns:
            The response, of any status, with its whole body.

        Raises:
            TransportError: there was no response, or an incomplete one.

        Cancellation:
            The exchange ends and its connection is closed; the server may process the request all
            the same.
        """
        ...


@final
@frozen
class TransportStatistics:
    """The state of a transport of kaleden's own.

    Attributes:
        in_flight: exchanges in progress.
        connections: open connections, idle ones included.
        stuck: connections that belong to no exchange and are not idle; anything but 0 is a lost
            slot.
    """

    in_flight: int
    connections: int
    stuck: int


class Bearer(Protocol):
    """A source of bearer tokens, which may return another one for the next request."""

    async def token(self) -> str:
        """Return the token to send now.

        Raises:
            TransportError: no token is available, so nothing was sent.
        """
        ...

    async def renew(self, refused: str) -> bool:
        """Replace a token that the server refused with 401, if possible.

        Returns:
            Whether `token` now returns another one, so that the request can be sent once more: a
            server does not process a request that it refused to authenticate.
        """
        ...


class Tls(Protocol):
    """A source of contexts for connections over https."""

    async def context(self) -> ssl.SSLContext:
        """Return the context for a new connection, the same object while nothing has changed.

        Connections made with an older context are not used for further requests.

        Raises:
            TransportError: no context is available, for example because a certificate has expired;
                nothing was sent.
        """
        ...
