"""An httpx transport over kaleden's connections, for any `httpx.AsyncClient`."""

from __future__ import annotations

import math
import re
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Final, cast, final

import anyio
import httpx
from attrs import define, field, frozen

from kaleden._http._anyio_options import TOKEN, VALUE, LazyTls, check_tls, new_proxy, origin_of
from kaleden._http._h1._connect import Dialer, ProxyResponseError, open_connection
from kaleden._http._h1._connection import Connection, read_more
from kaleden._http._h1._pool import Origin, Pool
from kaleden._http._h1._proxy import Proxy
from kaleden._http._h1._response_parser import ResponseParser
from kaleden._http._h1._tls import GivenTls
from kaleden._http._transport import Tls, TransportError, TransportStatistics

_TARGET: Final = re.compile(rb"[\x21-\x7e]+")


def format_head(request: httpx.Request, forwarder: Proxy | None = None) -> bytes:
    """Return the request line and the headers; a *forwarder* is the proxy that forwards them.

    Raises:
        httpx.LocalProtocolError: a server would read them as something else.
    """
    method = request.method.encode("ascii", "replace")
    target = cast("bytes", request.extensions.get("target", request.url.raw_path))
    if not TOKEN.fullmatch(method) or method == b"CONNECT":
        raise httpx.LocalProtocolError(f"{request.method!r} is not a method that can be sent")

    if not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError(f"{target!r} is not a valid target of a request")

    lines = b""
    for name, value in request.headers.raw:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            # The value is not shown: it may be a secret.
            raise httpx.LocalProtocolError(
                f"header {name!r} has characters that would end its line"
            )
        lines += b"%b: %b\r\n" % (name, value)
    if forwarder is not None:
        lines += forwarder.headers.encode("latin-1")
        if target.startswith(b"/"):
            # The absolute form (RFC 9112 §3.2.2).
            target = b"http://%b%b" % (request.url.netloc, target)
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)


async def frame_body(request: httpx.Request) -> AsyncGenerator[bytes]:
    """Yield the body in pieces, framed as the headers announce it (RFC 9112 §6).

    Raises:
        httpx.LocalProtocolError: its length is not as announced.
    """
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise httpx.LocalProtocolError("the body is a synchronous stream: use an asynchronous one")

    length, chunked = _parse_framing(request.headers)
    sent = 0
    async with _iterate(request.stream) as pieces:
        async for piece in pieces:
            if not piece:
                continue
            sent += len(piece)
            if not chunked and sent > length:
                message = f"the body is longer than the {length} bytes announced"
                raise httpx.LocalProtocolError(message)
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    if chunked:
        yield b"0\r\n\r\n"
    elif sent < length:
        raise httpx.LocalProtocolError(f"the body has {sent} bytes of {length} announced")


@asynccontextmanager
async def _iterate(stream: httpx.AsyncByteStream) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Iterate a stream and close it: trio warns of async generators that are not closed."""
    pieces = aiter(stream)
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _parse_framing(headers: httpx.Headers) -> tuple[int, bool]:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        raise httpx.LocalProtocolError("a body has either a Content-Length or chunks")

    if length is not None and not (length.isascii() and length.isdigit()):
        raise httpx.LocalProtocolError(f"Content-Length {length!r} is not a number")

    return int(length or 0), coding is not None


_IDEMPOTENT: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})

_LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0
)


class PooledTransport(httpx.AsyncBaseTransport):
    """An httpx transport over a pool of kaleden's connections, which no other transport uses."""

    def __init__(self, pool: Pool, tls: Tls, proxy: Proxy | None) -> None:
        self._pool = pool
        self._tls = tls
        self._proxy = proxy
        self._dialer = Dialer()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and read the head of its response; the body is read as it is iterated.

        Raises:
            httpx.TransportError: one of its subclasses, by the kind of failure.

        Cancellation:
            The exchange ends and its connection is closed.
        """
        origin = origin_of(request.url)
        head = format_head(request, self._proxy if origin.scheme == "http" else None)
        prepared = _PreparedRequest(request, origin, head, request.extensions.get("timeout", {}))
        context = await self._tls.context() if origin.scheme == "https" else None
        slots = self._pool.slots
        if slots.value:
            slots.acquire_nowait()
        else:
            with _within(prepared.timeouts.get("pool"), httpx.PoolTimeout):
                await slots.acquire()
        try:
            connection, response = await self._converse(prepared, context)
        except BaseException:
            slots.release()
            raise

        body = _Body(self._pool, prepared, connection, response)
        if response.complete:
            body.end()
        version = {"http_version": f"HTTP/{response.version}".encode()}
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions=version
        )

    async def _converse(
        self, prepared: _PreparedRequest, context: ssl.SSLContext | None
    ) -> tuple[Connection, ResponseParser]:
        """Send the request, and read until the head of its response is complete."""
        connection = self._pool.acquire(prepared.origin, context)
        if connection is not None:
            response = prepared.new_parser()
            try:
                await self._exchange(prepared, connection, response)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if response.started or not prepared.may_be_resent(connection):
                    raise
            else:
                return connection, response

        connection = await self._dial(prepared, context)
        response = prepared.new_parser()
        await self._exchange(prepared, connection, response)
        return connection, response

    async def _exchange(
        self, prepared: _PreparedRequest, connection: Connection, response: ResponseParser
    ) -> None:
        try:
            sent_all = await _write(prepared, connection)
            while not response.head_complete:
                await _read(prepared, connection, response)
            response.keep = response.keep and sent_all and not prepared.closes
        except BaseException:
            self._pool.discard(connection)
            raise

    async def _dial(self, prepared: _PreparedRequest, context: ssl.SSLContext | None) -> Connection:
        dial = partial(open_connection, self._dialer, prepared.origin, context, self._proxy)
        try:
            with _within(prepared.timeouts.get("connect"), httpx.ConnectTimeout):
                return await self._pool.add(dial)
        except ProxyResponseError as error:
            raise httpx.ProxyError(error.message) from error
        except TransportError as error:
            raise httpx.ConnectError(error.message) from error

    async def aclose(self) -> None:
        """Close all idle connections now, and the others when they are released.

        Cancellation:
            It waits for nothing.
        """
        self._pool.close()

    def statistics(self) -> TransportStatistics:
        """Return the current state; a response counts as in flight until its body is read."""
        in_flight = self._pool.slots_taken
        return TransportStatistics(
            in_flight=in_flight,
            connections=self._pool.open_count,
            stuck=max(0, self._pool.in_use_count - in_flight),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {self._pool.open_count} connections>"


@final
class AnyioTransport(PooledTransport):
    """Sends the requests of an `httpx.AsyncClient` on asyncio and trio, without httpx's pool.

    ::

        async with httpx.AsyncClient(transport=kaleden.http.AnyioTransport()) as client:
            ...

    A cancelled request leaves no slot of the pool in use, and the cost of a request does not grow
    with the number of connections. The transport speaks HTTP/1.1.

    Args:
        verify: the source of trust for TLS: True for the usual authorities, False for no
            verification, a string for a file or a folder of authorities. A context is used as it
            is: if it has `ssl.OP_IGNORE_UNEXPECTED_EOF` set, as contexts of Python up to 3.11.2
            have, a truncated response can seem complete.
        cert: the client's certificate: a PEM file with key and chain, or two files: chain, key. It
            is loaded into a context that was given as *verify*, as httpx does.
        limits: as for httpx, with the same defaults.
        trust_env: whether SSL_CERT_FILE and SSL_CERT_DIR name the authorities.
        proxy: an http or https proxy for all requests: a URL, or an `httpx.Proxy` with its own
            ``auth``, ``headers`` and ``ssl_context``. Requests over https go through a tunnel
            (``CONNECT``). A tunnel that the proxy refuses is an `httpx.ProxyError`.

    Raises:
        ConfigurationError: *verify*, *cert* or *proxy* cannot be used.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | None = None,
        limits: httpx.Limits = _LIMITS,
        trust_env: bool = True,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
    ) -> None:
        check_tls(verify, cert)
        most = sys.maxsize if limits.max_connections is None else limits.max_connections
        keep = limits.max_keepalive_connections
        expiry = limits.keepalive_expiry
        pool = Pool(
            most,
            keep=most if keep is None else min(keep, most),
            expiry=math.inf if expiry is None else expiry,
        )
        tls: Tls = (
            GivenTls(verify)
            if isinstance(verify, ssl.SSLContext) and cert is None
            else LazyTls(verify, cert, trust_env)
        )
        super().__init__(pool, tls, None if proxy is None else new_proxy(proxy, trust_env))


@frozen
class _PreparedRequest:
    """A request, with the values that are read from it once."""

    request: httpx.Request
    origin: Origin
    head: bytes = field(repr=False)
    timeouts: Mapping[str, float | None]
    """Seconds by kind of wait; None for no limit."""

    @property
    def closes(self) -> bool:
        """Whether it announces that it is the last on its connection (RFC 9112 §9.6)."""
        options = self.request.headers.get("connection", "").lower().split(",")
        return "close" in [option.strip() for option in options]

    def new_parser(self) -> ResponseParser:
        """Return a parser for its response."""
        return ResponseParser(sys.maxsize, bodiless=self.request.method == "HEAD")

    def may_be_resent(self, connection: Connection) -> bool:
        """Return whether it may be sent again after a connection that returned nothing."""
        # Any other stream is consumed.
        repeatable = isinstance(self.request.stream, httpx.ByteStream)
        return repeatable and (self.request.method in _IDEMPOTENT or not connection.wrote)


@final
@define(eq=False, repr=False)
class _Body(httpx.AsyncByteStream):
    """The body of a response, read piece by piece; it releases its connection at its end."""

    _pool: Pool
    _prepared: _PreparedRequest
    _connection: Connection
    _response: ResponseParser
    _ended: bool = field(init=False, default=False)

    def end(self) -> None:
        """Release the connection, or close it if there is more to come; the first time only."""
        if self._ended:
            return

        self._ended = True
        if self._response.complete and self._response.keep:
            self._pool.release(self._prepared.origin, self._connection)
        else:
            self._pool.discard(self._connection)
        self._pool.slots.release()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not (piece := self._response.take_body()):
            if self._response.complete:
                raise StopAsyncIteration
            if self._ended:
                raise httpx.StreamClosed
            try:
                await _read(self._prepared, self._connection, self._response)
            except BaseException:
                self.end()
                raise
            if self._response.complete:
                self.end()
        return piece

    async def aclose(self) -> None:
        self.end()


async def _write(prepared: _PreparedRequest, connection: Connection) -> bool:
    """Send a request; return whether all of it was sent."""
    waiting = prepared.head
    async with aclosing(frame_body(prepared.request)) as pieces:
        async for piece in pieces:
            if not await _write_piece(prepared, connection, waiting + piece):
                return False
            waiting = b""
    return not waiting or await _write_piece(prepared, connection, waiting)


async def _write_piece(prepared: _PreparedRequest, connection: Connection, piece: bytes) -> bool:
    try:
        with _within(prepared.timeouts.get("write"), httpx.WriteTimeout):
            await connection.write(piece)
    except OSError as error:
        if not connection.wrote:
            raise httpx.WriteError(str(error)) from error

        # A server that refuses a large body may respond before it has read all of it.
        return False
    return True


async def _read(
    prepared: _PreparedRequest, connection: Connection, response: ResponseParser
) -> None:
    """Read more of a response."""
    try:
        with _within(prepared.timeouts.get("read"), httpx.ReadTimeout):
            await read_more(connection, response)
    except OSError as error:
        raise httpx.ReadError(str(error)) from error
    except TransportError as error:
        raise httpx.RemoteProtocolError(error.message) from error


@contextmanager
def _within(seconds: float | None, error: type[httpx.TimeoutException]) -> Generator[None]:
    """Raise *error* if the block takes longer."""
    if seconds is None:
        yield
        return

    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise error(f"it took longer than {seconds:g} seconds")
