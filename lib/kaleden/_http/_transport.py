"""The seam between what is asked and how it travels."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final, runtime_checkable

from attrs import frozen

from kaleden._errors import FailureKind
from kaleden._wire import Request, Response

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for a connection to be made; a Skaha server answers that at once, however busy."""

MAX_BODY: Final = 64 * 2**20
"""Bytes of one reply, at most. Only logs come near."""


def too_long_for(max_body: int) -> str:
    """Say that a reply is longer than that, and what bears more."""
    return f"longer than {max_body} bytes; max_body= of the session takes more"


class TransportError(Exception):
    """An exchange that brought no reply.

    Args:
        kind: `CONNECT_FAILED`, `CONNECTION_LOST`, `TIMED_OUT` or `PROTOCOL`; `NOT_AUTHENTICATED` if
            there is no token, or no certificate that is valid.
        message: what happened, in a sentence for the user.
        sent: whether any of the request may have reached the server.
        final: whether it would be the same a second time: a certificate that is not trusted, say.
    """

    def __init__(self, kind: FailureKind, message: str, *, sent: bool, final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sent = sent
        self.final = final


@runtime_checkable
class Transport(Protocol):
    """Anything that can carry one request and bring its reply.

    A transport does not retry, follow redirects, or judge a reply by its status. It may be called
    from many tasks at once; the client calls it from children of an anyio task group only, and
    never from more of them than its ``concurrency``.
    """

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply.

        Args:
            request: what to ask, relative to the server's base URL.

        Returns:
            The reply, whatever its status, with its body read to the end.

        Raises:
            TransportError: there was no reply, or not a whole one.

        Cancellation:
            The exchange is given up and its connection closed; the server may do what it was asked
            all the same.
        """
        ...


@final
@frozen
class TransportStatistics:
    """The state of a transport of ours.

    Attributes:
        in_flight: exchanges under way.
        connections: connections open now, idle ones included.
        stuck: connections that belong to no exchange and are not idle; anything but 0 is a lost
            slot.
        replaced: how often a pool with a lost slot was replaced.
    """

    in_flight: int
    connections: int
    stuck: int
    replaced: int


class Bearer(Protocol):
    """A bearer token, which may be another one by the next request."""

    async def token(self) -> str:
        """Tell the token to send now.

        Raises:
            TransportError: there is none, so nothing was sent.
        """
        ...

    async def renew(self, refused: str) -> bool:
        """Hear that the server answered 401 to *refused*.

        Returns:
            Whether `token` now tells another one, so that the request can be sent once more: the
            server did nothing of what it refused to authenticate.
        """
        ...


class Tls(Protocol):
    """What a connection over https is made with."""

    async def context(self) -> ssl.SSLContext:
        """Tell the context for a new connection: the same object for as long as nothing changed.

        Connections made with an older one are not used for further requests.

        Raises:
            TransportError: there is none, an expired certificate say, so nothing was sent.
        """
        ...


async def send_as(
    bearer: Bearer | None,
    attempt: Callable[[Request, str | None], Awaitable[Response]],
    request: Request,
) -> Response:
    """Send a request with the token of *bearer*, and once more if another one is to be tried.

    Args:
        bearer: tells the token to send; None to send none.
        attempt: sends a request with a token.
        request: what to send.
    """
    if bearer is None:
        return await attempt(request, None)

    token = await bearer.token()
    response = await attempt(request, token)
    if response.status == 401 and await bearer.renew(token):
        return await attempt(request, await bearer.token())

    return response
