"""The same connections for any user of httpx."""

from __future__ import annotations

import math
import re
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, Self, cast, final

import anyio
import anyio.to_thread
import httpx
from attrs import frozen

from kaleden._errors import ConfigurationError
from kaleden._http._h1._connect import Dialer, open_connection
from kaleden._http._h1._connection import Connection, read_more
from kaleden._http._h1._pool import Origin, Pool
from kaleden._http._h1._response_parser import ResponseParser
from kaleden._http._h1._tls import detect_truncation
from kaleden._http._transport import TransportError, TransportStatistics

# RFC 9110 §5.6.2 and §5.5: a token, and the value of a header without what would end its line.
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def origin_of(url: httpx.URL) -> Origin:
    """Tell where a request goes to.

    Raises:
        httpx.UnsupportedProtocol: it is neither http nor https.
    """
    if url.scheme not in _DEFAULT_PORTS:
        what = f"protocol {url.scheme!r}" if url.scheme else "URL without a protocol"
        raise httpx.UnsupportedProtocol(f"cannot send to a {what}: http:// or https:// is needed")

    return Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme])


def write_head(request: httpx.Request) -> bytes:
    """Write the request line and the headers.

    Raises:
        httpx.LocalProtocolError: they would not be read as what they are.
    """
    method = request.method.encode("ascii", "replace")
    target = cast("bytes", request.extensions.get("target", request.url.raw_path))
    if not _TOKEN.fullmatch(method) or method == b"CONNECT":
        raise httpx.LocalProtocolError(f"{request.method!r} is no method that can be sent")

    if not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError(f"{target!r} is no target of a request")

    lines = [b"%b %b HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            # Not shown: it may be a secret.
            raise httpx.LocalProtocolError(f"header {name!r} has what would end its line")
        lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))


async def write_body(request: httpx.Request) -> AsyncGenerator[bytes]:
    """Write the body in pieces, as the headers announce it (RFC 9112 §6).

    Raises:
        httpx.LocalProtocolError: it is not what the headers announce.
    """
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise httpx.LocalProtocolError("the body can only be read by blocking: use an async one")

    length, chunked = _announced(request.headers)
    sent = 0
    async with _iterated(request.stream) as pieces:
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
async def _iterated(stream: httpx.AsyncByteStream) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Iterate a stream and end that at once: trio warns of async generators that are left."""
    pieces = aiter(stream)
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _announced(headers: httpx.Headers) -> tuple[int, bool]:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        raise httpx.LocalProtocolError("a body has a Content-Length, or comes in chunks")

    if length is not None and not (length.isascii() and length.isdigit()):
        raise httpx.LocalProtocolError(f"Content-Length {length!r} is no number")

    return int(length or 0), coding is not None


_IDEMPOTENT: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})

_LIMITS: Final = httpx.Limits(
    max_connections=100, max_keepalive_connections=20, keepalive_expiry=5.0
)


@final
class AnyioTransport(httpx.AsyncBaseTransport):
    """Carries the requests of an `httpx.AsyncClient`, on asyncio and trio, without httpx's pool.

    ::

        async with httpx.AsyncClient(transport=kaleden.http.AnyioTransport()) as client:
            ...

    A request that is cancelled costs no place in the pool, and what a request costs does not grow
    with the number of connections. It speaks HTTP/1.1, and knows no proxies: mount it for the URLs
    that need none.

    Args:
        verify: what TLS is made with; True for the usual authorities, False to trust everybody, a
            string for a file or a folder of authorities. A context is used as it is: where it has
            `ssl.OP_IGNORE_UNEXPECTED_EOF` set, as Python up to 3.11.2 makes it, a truncated
            reply can be taken as complete.
        cert: the client's certificate: a PEM file with key and chain, or two files: chain, key. A
            context that was given as *verify* gets it loaded, as by httpx.
        limits: as for httpx, with the same defaults.
        trust_env: whether SSL_CERT_FILE and SSL_CERT_DIR name the authorities.

    Raises:
        ConfigurationError: *verify* or *cert* is of a type that cannot be used.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: str | tuple[str, str] | None = None,
        limits: httpx.Limits = _LIMITS,
        trust_env: bool = True,
    ) -> None:
        _check_tls(verify, cert)
        most = sys.maxsize if limits.max_connections is None else limits.max_connections
        keep = limits.max_keepalive_connections
        expiry = limits.keepalive_expiry
        self._pool = Pool(
            most,
            keep=most if keep is None else min(keep, most),
            expiry=math.inf if expiry is None else expiry,
        )
        self._dialer = Dialer()
        self._making = anyio.Lock()
        self._context: ssl.SSLContext | None = None
        if isinstance(verify, ssl.SSLContext) and cert is None:
            self._context = verify
        else:
            self._new_context = partial(_new_context, verify, cert, trust_env)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send *request* and read the head of its reply; the body comes as it is read.

        Raises:
            httpx.TransportError: one of its children, by what went wrong.

        Cancellation:
            The exchange is given up and its connection closed.
        """
        asked = _Asked(request, origin_of(request.url), write_head(request), _Timeouts.of(request))
        context = await self._tls() if asked.origin.scheme == "https" else None
        slots = self._pool.slots
        if not slots.acquire_nowait():
            with _within(asked.timeouts.pool, httpx.PoolTimeout):
                await slots.acquire()
        try:
            connection, reply = await self._converse(asked, context)
        except BaseException:
            slots.release()
            raise

        body = _Body(self._pool, asked, connection, reply)
        if reply.complete:
            body.end()
        version = {"http_version": f"HTTP/{reply.version}".encode()}
        return httpx.Response(reply.status, headers=reply.headers, stream=body, extensions=version)

    async def _converse(
        self, asked: _Asked, context: ssl.SSLContext | None
    ) -> tuple[Connection, ResponseParser]:
        """Send the request, and read until the head of its reply is there."""
        connection = self._pool.acquire(asked.origin, context)
        if connection is not None:
            reply = asked.reply()
            try:
                await self._exchange(asked, connection, reply)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if reply.started or not asked.may_go_again(connection):
                    raise
            else:
                return connection, reply

        connection = await self._dial(asked, context)
        reply = asked.reply()
        await self._exchange(asked, connection, reply)
        return connection, reply

    async def _exchange(self, asked: _Asked, connection: Connection, reply: ResponseParser) -> None:
        try:
            whole = await _write(asked, connection)
            while not reply.head_complete:
                await _read(asked, connection, reply)
            reply.keep = reply.keep and whole and not asked.closes
        except BaseException:
            self._pool.discard(connection)
            raise

    async def _dial(self, asked: _Asked, context: ssl.SSLContext | None) -> Connection:
        try:
            with _within(asked.timeouts.connect, httpx.ConnectTimeout):
                dial = partial(open_connection, self._dialer, asked.origin, context)
                return await self._pool.add(dial)
        except TransportError as error:
            raise httpx.ConnectError(error.message) from error

    async def _tls(self) -> ssl.SSLContext:
        async with self._making:
            if self._context is None:
                # It takes a while to read all those authorities.
                self._context = await anyio.to_thread.run_sync(self._new_context)
            return self._context

    async def aclose(self) -> None:
        """Close all connections that are not in use, and the others when they are not any more.

        Cancellation:
            There is nothing to wait for.
        """
        self._pool.close()

    def statistics(self) -> TransportStatistics:
        """Tell the state now; a reply whose body was not read to its end is in flight."""
        in_flight = self._pool.slots.taken
        return TransportStatistics(
            in_flight=in_flight,
            connections=self._pool.open_count,
            stuck=max(0, self._pool.in_use_count - in_flight),
            replaced=0,
        )

    def __repr__(self) -> str:
        return f"<AnyioTransport, {self._pool.open_count} connections>"


@frozen
class _Timeouts:
    """Seconds, by what is waited for; None to wait for ever."""

    connect: float | None
    read: float | None
    write: float | None
    pool: float | None

    @classmethod
    def of(cls, request: httpx.Request) -> Self:
        given: Mapping[str, float | None] = request.extensions.get("timeout", {})
        return cls(*(given.get(name) for name in ("connect", "read", "write", "pool")))


@frozen
class _Asked:
    """A request, with what is read from it once."""

    request: httpx.Request
    origin: Origin
    head: bytes
    timeouts: _Timeouts

    @property
    def closes(self) -> bool:
        """Whether it says that it is the last one on its connection (RFC 9112 §9.6)."""
        options = self.request.headers.get("connection", "").lower().split(",")
        return "close" in [option.strip() for option in options]

    def reply(self) -> ResponseParser:
        """Begin to expect a reply."""
        return ResponseParser(sys.maxsize, bodiless=self.request.method == "HEAD")

    def may_go_again(self, connection: Connection) -> bool:
        """Tell whether a connection that brought nothing may be followed by another one."""
        # A body that is a stream has been used up.
        again = isinstance(self.request.stream, httpx.ByteStream)
        return again and (self.request.method in _IDEMPOTENT or not connection.wrote)


@final
class _Body(httpx.AsyncByteStream):
    """The body of a reply, read piece by piece; gives its connection back when it has ended."""

    def __init__(
        self, pool: Pool, asked: _Asked, connection: Connection, reply: ResponseParser
    ) -> None:
        self._pool = pool
        self._asked = asked
        self._connection = connection
        self._reply = reply
        self._ended = False

    def end(self) -> None:
        """Give the connection back, or close it if there is more to come; the first time only."""
        if self._ended:
            return

        self._ended = True
        if self._reply.complete and self._reply.keep:
            self._pool.release(self._asked.origin, self._connection)
        else:
            self._pool.discard(self._connection)
        self._pool.slots.release()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not (piece := self._reply.take_body()):
            if self._reply.complete:
                raise StopAsyncIteration
            if self._ended:
                raise httpx.StreamClosed
            await self._read()
        return piece

    async def _read(self) -> None:
        try:
            await _read(self._asked, self._connection, self._reply)
        except BaseException:
            self.end()
            raise
        if self._reply.complete:
            self.end()

    async def aclose(self) -> None:
        self.end()


async def _write(asked: _Asked, connection: Connection) -> bool:
    """Send a request; tell whether all of it went out."""
    waiting = asked.head
    async with aclosing(write_body(asked.request)) as pieces:
        async for piece in pieces:
            if not await _write_piece(asked, connection, waiting + piece):
                return False
            waiting = b""
    return not waiting or await _write_piece(asked, connection, waiting)


async def _write_piece(asked: _Asked, connection: Connection, piece: bytes) -> bool:
    try:
        with _within(asked.timeouts.write, httpx.WriteTimeout):
            await connection.write(piece)
    except OSError as error:
        if not connection.wrote:
            raise httpx.WriteError(str(error)) from error

        # A server that refuses a large body may answer before it has read all of it.
        return False
    return True


async def _read(asked: _Asked, connection: Connection, reply: ResponseParser) -> None:
    """Read more of a reply."""
    try:
        with _within(asked.timeouts.read, httpx.ReadTimeout):
            await read_more(connection, reply)
    except OSError as error:
        raise httpx.ReadError(str(error)) from error
    except TransportError as error:
        raise httpx.RemoteProtocolError(error.message) from error


@contextmanager
def _within(seconds: float | None, error: type[httpx.TimeoutException]) -> Generator[None]:
    """Raise *error* if what is inside takes longer."""
    if seconds is None:
        yield
        return

    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise error(f"it took longer than {seconds:g} seconds")


def _check_tls(verify: object, cert: object) -> None:
    if not isinstance(verify, ssl.SSLContext | str | bool):
        msg = f"verify= takes an ssl.SSLContext, a path as a string, or a bool, not {verify!r}"
        raise ConfigurationError(msg)

    files = cast("tuple[object, ...]", cert) if isinstance(cert, tuple) else (cert,)
    if cert is not None and not all(isinstance(file, str) for file in files):
        msg = "cert= takes the path of a PEM file as a string, or two of them: (chain, key)"
        raise ConfigurationError(msg)


def _new_context(
    verify: ssl.SSLContext | str | bool,
    cert: str | tuple[str, str] | None,
    trust_env: bool,
) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif isinstance(verify, str):
        # httpx takes it too, with a warning that it will not for ever.
        file, folder = (None, verify) if Path(verify).is_dir() else (verify, None)
        context = detect_truncation(ssl.create_default_context(cafile=file, capath=folder))
        context.set_alpn_protocols(["http/1.1"])
    else:
        context = detect_truncation(httpx.create_ssl_context(verify=verify, trust_env=trust_env))
        context.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    return context
