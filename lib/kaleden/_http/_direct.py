"""The transport of the client's own requests: prepared bytes out, replies read strictly."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Self, TypeAlias, final

import anyio
from anyio import AsyncContextManagerMixin

from kaleden._http._h1._connect import (
    Dialer,
    connect_failed,
    describe_error,
    is_certificate_refusal,
    open_connection,
)
from kaleden._http._h1._connection import Connection, read_more
from kaleden._http._h1._pool import Pool
from kaleden._http._h1._request_writer import RequestWriter, origin_of
from kaleden._http._h1._response_parser import Headers, ResponseParser, lost
from kaleden._http._h1._write_batch import MAX_BATCHED_BYTES, WriteBatcher
from kaleden._http._transport import (
    CONNECT_TIMEOUT,
    MAX_BODY,
    Bearer,
    Tls,
    TransportError,
    TransportStatistics,
    send_as,
)
from kaleden._wire import Request, Response

_IDEMPOTENT: Final = frozenset({"GET", "DELETE"})

# Requests in flight from which on it pays to send together: it takes a turn of the event loop.
_BATCH_THRESHOLD: Final = 4

_Write: TypeAlias = Callable[[Connection, bytes], Awaitable[None]]


@final
class DirectTransport(AsyncContextManagerMixin):
    """Carries requests over HTTP/1.1 connections of its own, which are kept.

    A connection belongs to the task that uses it: if that is cancelled, the connection is closed,
    and nothing that others use is left half-changed.

    Args:
        root: the server's URL without version, for what has no version.
        base: the URL that versioned resources are under; of the same server.
        bearer: tells the token to send; None to send none.
        tls: what connections are made with; None for plain http.
        connections: connections at most.
        max_body: bytes of one reply, at most.
    """

    def __init__(
        self,
        root: str,
        base: str,
        *,
        bearer: Bearer | None = None,
        tls: Tls | None = None,
        connections: int,
        max_body: int = MAX_BODY,
    ) -> None:
        self._base = base
        self._bearer = bearer
        self._tls = tls
        self._max_body = max_body
        self._writer = RequestWriter(root, base)
        self._origin = origin_of(root)
        self._pool = Pool(connections, keep=connections)
        self._dialer = Dialer()
        self._batcher = WriteBatcher()
        self._in_flight = 0

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        try:
            yield self
        finally:
            self._pool.close()

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply; see `Transport.send`."""
        self._in_flight += 1
        try:
            return await send_as(self._bearer, self._deliver, request)
        finally:
            self._in_flight -= 1

    async def _deliver(self, request: Request, token: str | None) -> Response:
        data = self._writer.write(request, token)
        context = None if self._tls is None else await self._tls.context()
        slots = self._pool.slots
        await slots.acquire()
        try:
            return await self._attempt(request, data, context)
        finally:
            slots.release()

    async def _attempt(
        self, request: Request, data: bytes, context: ssl.SSLContext | None
    ) -> Response:
        pool = self._pool
        connection = pool.acquire(self._origin, context)
        if connection is None:
            connection = await pool.add(partial(self._dial, context))
        reply = ResponseParser(self._max_body)
        write = self._way(request, connection, data)
        try:
            return await self._exchange(connection, data, reply, write)
        except TransportError:
            if not connection.reused or reply.started:
                raise

            if connection.wrote and request.method not in _IDEMPOTENT:
                raise

        # The server had closed the connection while nobody used it (RFC 9112 §9.3.1).
        connection = await pool.add(partial(self._dial, context))
        return await self._exchange(
            connection, data, ResponseParser(self._max_body), Connection.write
        )

    def _way(self, request: Request, connection: Connection, data: bytes) -> _Write:
        """Choose how a request is sent: with others only if it could be sent once more."""
        if (
            self._in_flight >= _BATCH_THRESHOLD
            and connection.reused
            and request.method in _IDEMPOTENT
            and len(data) <= MAX_BATCHED_BYTES
        ):
            return self._batcher.send

        return Connection.write

    async def _exchange(
        self, connection: Connection, data: bytes, reply: ResponseParser, write: _Write
    ) -> Response:
        try:
            await self._converse(connection, data, reply, write)
        except BaseException:
            self._pool.discard(connection)
            raise

        if reply.keep:
            self._pool.release(self._origin, connection)
        else:
            self._pool.discard(connection)
        return Response(reply.status, Headers(reply.headers), reply.take_body())

    async def _converse(
        self, connection: Connection, data: bytes, reply: ResponseParser, write: _Write
    ) -> None:
        """Send a request and read its reply."""
        whole = True
        try:
            await write(connection, data)
        except OSError as error:
            if not connection.wrote:
                raise connect_failed(self._origin, str(error)) from error

            # A server that refuses a large form may answer before it has read all of it.
            whole = False

        while not reply.complete:
            try:
                await read_more(connection, reply)
            except OSError as error:
                if is_certificate_refusal(error) and not connection.reused:
                    raise connect_failed(self._origin, describe_error(error), final=True) from error
                raise lost(f"the connection broke off: {error}") from error
        reply.keep = reply.keep and whole

    async def _dial(self, context: ssl.SSLContext | None) -> Connection:
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                return await open_connection(self._dialer, self._origin, context)
        except TimeoutError:
            why = f"it was not made within {CONNECT_TIMEOUT:g} seconds"
            raise connect_failed(self._origin, why) from None

    def statistics(self) -> TransportStatistics:
        """Tell the transport's state now."""
        return TransportStatistics(
            in_flight=self._in_flight,
            connections=self._pool.open_count,
            stuck=max(0, self._pool.in_use_count - self._in_flight),
            replaced=0,
        )

    def __repr__(self) -> str:
        return f"<DirectTransport {self._base}, {self._in_flight} in flight>"
