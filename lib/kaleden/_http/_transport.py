"""The seam between what is asked and how it travels."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kaleden._errors import FailureKind
from kaleden._wire import Request, Response


class TransportError(Exception):
    """An exchange that brought no reply.

    Args:
        kind: `CONNECT_FAILED`, `CONNECTION_LOST`, `TIMED_OUT` or `PROTOCOL`.
        message: what happened, in a sentence for the user.
        sent: whether any of the request may have reached the server.
    """

    def __init__(self, kind: FailureKind, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.sent = sent


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
