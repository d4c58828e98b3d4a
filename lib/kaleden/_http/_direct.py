"""The transport of the client's own requests: prepared bytes out, responses parsed strictly."""

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
    check_forwarded,
    connect_failed,
    describe_error,
    is_certificate_refusal,
    open_connection,
)
from kaleden._http._h1._connection import Connection, read_more
from kaleden._http._h1._pool import Pool
from kaleden._http._h1._proxy import Proxy
from kaleden._http._h1._request_writer import RequestWriter, origin_of
from kaleden._http._h1._response_parser import Headers, ResponseParser, connection_lost
from kaleden._http._h1._write_batch import MAX_BATCHED_BYTES, WriteBatcher
from kaleden._http._transport import (
    CONNECT_TIMEOUT,
    MAX_BODY,
    Bearer,
    Tls,
    TransportError,
    TransportStatistics,
)
from kaleden._wire import Request, Response

_IDEMPOTENT: Final = frozenset({"GET", "DELETE"})

# Requests in flight from which batching pays: it costs an event-loop iteration.
_BATCH_THRESHOLD: Final = 4

_Write: TypeAlias = Callable[[Connection, bytes], Awaitable[None]]


@final
class DirectTransport(AsyncContextManagerMixin):
    """Sends requests over HTTP/1.1 connections of its own, which are kept.

    A connection belongs to the task that uses it: if that is cancelled, the connection is closed,
    and no state that others use is left half-changed.

    Args:
        root: the server's URL without version, for resources that have none.
        base: the URL that versioned resources are under; of the same server.
        bearer: the source of tokens; None to send none.
        tls: the source of contexts for https; None for plain http.
        proxy: the proxy to go through; None for none.
        connections: connections at most.
        max_body: bytes of one response, at most.
    """

    def __init__(
        self,
        root: str,
        base: str,
        *,
        bearer: Bearer | None = None,
        tls: Tls | None = None,
        proxy: Proxy | None = None,
        connections: int,
        max_body: int = MAX_BODY,
    ) -> None:
        self._base = base
        self._bearer = bearer
        self._tls = tls
        self._proxy = proxy
        self._max_body = max_body
        self._origin = origin_of(root)
        forwarder = proxy if self._origin.scheme == "http" else None
        self._writer = RequestWriter(root, base, forwarder)
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
        """Send *request* and read the whole response; see `Transport.send`."""
        self._in_flight += 1
        try:
            if self._bearer is None:
                return await self._deliver(request, None)

            token = await self._bearer.token()
            response = await self._deliver(request, token)
            if response.status == 401 and await self._bearer.renew(token):
                return await self._deliver(request, await self._bearer.token())
            return response
        finally:
            self._in_flight -= 1

    async def _deliver(self, request: Request, token: str | None) -> Response:
        data = self._writer.write(request, token)
        context = None if self._tls is None else await self._tls.context()
        slots = self._pool.slots
        if slots.value:
            slots.acquire_nowait()
        else:
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
        response = self._new_parser(request)
        write = self._choose_write(request, connection, data)
        try:
            return await self._exchange(connection, data, response, write)
        except TransportError:
            if not connection.reused or response.started:
                raise

            if connection.wrote and request.method not in _IDEMPOTENT:
                raise

        # The server had closed the connection while it was idle (RFC 9112 §9.3.1).
        connection = await pool.add(partial(self._dial, context))
        return await self._exchange(connection, data, self._new_parser(request), Connection.write)

    def _new_parser(self, request: Request) -> ResponseParser:
        keep_last = (request.max_body or self._max_body) if request.keep_last else None
        return ResponseParser(self._max_body, keep_last=keep_last)

    def _choose_write(self, request: Request, connection: Connection, data: bytes) -> _Write:
        """Choose how to send a request: in a batch only if it may be sent once more."""
        if (
            self._in_flight >= _BATCH_THRESHOLD
            and connection.reused
            and request.method in _IDEMPOTENT
            and len(data) <= MAX_BATCHED_BYTES
        ):
            return self._batcher.send

        return Connection.write

    async def _exchange(
        self, connection: Connection, data: bytes, response: ResponseParser, write: _Write
    ) -> Response:
        try:
            await self._converse(connection, data, response, write)
        except BaseException as error:
            self._pool.discard(connection)
            if isinstance(error, TransportError):
                check_forwarded(self._origin, self._proxy, response.status)
            raise

        if response.keep:
            self._pool.release(self._origin, connection)
        else:
            self._pool.discard(connection)
        check_forwarded(self._origin, self._proxy, response.status)
        headers = Headers(response.headers)
        return Response(response.status, headers, response.take_body(), response.omitted)

    async def _converse(
        self, connection: Connection, data: bytes, response: ResponseParser, write: _Write
    ) -> None:
        """Send a request and read its response."""
        sent_all = True
        try:
            await write(connection, data)
        except OSError as error:
            if not connection.wrote:
                raise connect_failed(self._origin, str(error)) from error

            # A server that refuses a large form may respond before it has read all of it.
            sent_all = False

        while not response.complete:
            try:
                await read_more(connection, response)
            except OSError as error:
                if is_certificate_refusal(error) and not connection.reused:
                    raise connect_failed(self._origin, describe_error(error), final=True) from error
                raise connection_lost(f"the connection broke off: {error}") from error
        response.keep = response.keep and sent_all

    async def _dial(self, context: ssl.SSLContext | None) -> Connection:
        try:
            with anyio.fail_after(CONNECT_TIMEOUT):
                return await open_connection(self._dialer, self._origin, context, self._proxy)
        except TimeoutError:
            via = "" if self._proxy is None else f" through the proxy {self._proxy.url}"
            why = f"it was not made{via} within {CONNECT_TIMEOUT:g} seconds"
            raise connect_failed(self._origin, why) from None

    def statistics(self) -> TransportStatistics:
        """Return the current state."""
        return TransportStatistics(
            in_flight=self._in_flight,
            connections=self._pool.open_count,
            stuck=max(0, self._pool.in_use_count - self._in_flight),
        )

    def __repr__(self) -> str:
        return f"<DirectTransport {self._base}, {self._in_flight} in flight>"
