"""The adapter over httpx.

httpx 0.28's pool can lose a connection slot for ever when a request is cancelled while it waits for
one, or by asyncio's native cancellation while it connects. Three rules keep clear of that: the pool
is never smaller than the client's gate, so nobody waits in it; every request runs in a child of an
anyio task group, so it is only ever cancelled by a scope; and the pool is looked at whenever it
should be at rest, and replaced if a slot is stuck.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, Self, final

import anyio
import httpx
from anyio import AsyncContextManagerMixin

from kaleden._errors import ConfigurationError, FailureKind
from kaleden._http._transport import TransportError, TransportStatistics
from kaleden._wire import FORM_TYPE, Request, Response

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to be made; a Skaha server answers that at once, however busy."""

CLOSE_TIMEOUT = 5.0
"""Seconds for the connections to be closed, TLS farewells included."""

MAX_BODY = 64 * 2**20
"""Bytes of one reply, at most. Only logs come near."""


@final
class HttpxTransport(AsyncContextManagerMixin):
    """Carries requests with httpx, over HTTP/1.1 connections that are kept.

    Args:
        root: the server's URL without version, for what has no version.
        base: the URL that versioned resources are under.
        token: the bearer token, or None to send none.
        connections: connections at most; the client's gate must not admit more.
        trust_env: whether proxies are taken from the environment.
        inner: what httpx shall send with, for a server inside this process.
    """

    def __init__(
        self,
        root: str,
        base: str,
        token: str | None,
        *,
        connections: int,
        trust_env: bool = True,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._root = root
        self._base = base
        self._token = token
        self._connections = connections
        self._trust_env = trust_env
        self._inner = inner
        self._in_flight = 0
        self._retired: list[httpx.AsyncClient] = []
        try:
            self._client = self._new_client()
        except (httpx.InvalidURL, ValueError, ImportError, OSError) as error:
            msg = (
                "the proxy or certificate settings of the environment cannot be used: check "
                "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY and SSL_CERT_FILE "
                f"({type(error).__name__})"
            )
            raise ConfigurationError(msg) from error

    def _new_client(self) -> httpx.AsyncClient:
        headers = {"User-Agent": f"kaleden/{version('kaleden')}"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"

        return httpx.AsyncClient(
            headers=headers,
            # A cookie that the server sets would outlive the token that it was given for.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
            limits=httpx.Limits(
                max_connections=self._connections, max_keepalive_connections=self._connections
            ),
            # The whole attempt has its time from the engine. Only a connection that cannot be made
            # is told apart here, since then nothing was sent.
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT),
            transport=self._inner,
            trust_env=self._trust_env,
        )

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        try:
            yield self
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                for client in (*self._retired, self._client):
                    await client.aclose()

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply; see `Transport.send`."""
        self._in_flight += 1
        try:
            with _translated_errors():
                return await self._exchange(request)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._replace_if_stuck()

    async def _exchange(self, request: Request) -> Response:
        url = f"{self._base if request.versioned else self._root}/{request.target}"
        outgoing = self._client.build_request(request.method, url, headers=_headers(request))
        if request.form:
            outgoing.stream = _Form(request.form)
        reply = await self._client.send(outgoing, stream=True)
        try:
            return Response(reply.status_code, reply.headers, await _read(reply))
        finally:
            await reply.aclose()
            await self._drop_what_has_more()

    async def _drop_what_has_more(self) -> None:
        """Close idle connections with bytes nobody asked for: they would answer the next one."""
        for connection in _pool(self._client):
            if connection.is_idle() and _has_surplus(connection):
                await connection.aclose()

    def _replace_if_stuck(self) -> None:
        if _stuck(self._client):
            self._retired.append(self._client)
            self._client = self._new_client()

    def statistics(self) -> TransportStatistics:
        """Tell the transport's state now."""
        busy = [connection for connection in _pool(self._client) if not _at_rest(connection)]
        return TransportStatistics(
            in_flight=self._in_flight,
            connections=len(_pool(self._client)),
            stuck=max(0, len(busy) - self._in_flight),
            replaced=len(self._retired),
        )

    def __repr__(self) -> str:
        return f"<HttpxTransport {self._base}, {self._in_flight} in flight>"


class _Form(httpx.AsyncByteStream):
    """A body in one piece. httpx's own is an async generator, which trio warns of if it is left."""

    def __init__(self, form: bytes) -> None:
        self._form = form

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._form)


class _Once(AsyncIterator[bytes]):
    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


async def _read(reply: httpx.Response) -> bytes:
    """Read the body, as long as it is bearable."""
    body = bytearray()
    too_long = TransportError(
        FailureKind.PROTOCOL, f"the reply is longer than {MAX_BODY} bytes", sent=True
    )
    try:
        async for chunk in reply.aiter_raw():
            body += chunk
            if len(body) > MAX_BODY:
                # Not simply left: httpx reads through a chain of generators, all of which end only
                # if the innermost does. Without a connection, it does.
                await reply.aclose()
    except httpx.HTTPError as error:
        if len(body) > MAX_BODY:
            raise too_long from error
        raise

    if len(body) > MAX_BODY:
        raise too_long
    return bytes(body)


def _headers(request: Request) -> dict[str, str]:
    # Nothing compressed: a small reply gains nothing, and no reply can be larger than it seems.
    headers = {"Accept": request.accept, "Accept-Encoding": "identity", **dict(request.headers)}
    if request.form:
        headers["Content-Length"] = str(len(request.form))
        # The server reads parameters from a body of this type only.
        headers["Content-Type"] = FORM_TYPE
    return headers


@contextmanager
def _translated_errors() -> Generator[None]:
    """Turn httpx's exceptions into ours, by what is known of whether the request left."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        raise TransportError(FailureKind.CONNECT_FAILED, _told(error), sent=False) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise TransportError(FailureKind.CONNECT_FAILED, _told(error), sent=False) from error
    except httpx.TimeoutException as error:
        raise TransportError(FailureKind.TIMED_OUT, _told(error), sent=True) from error
    except httpx.NetworkError as error:
        raise TransportError(FailureKind.CONNECTION_LOST, _told(error), sent=True) from error
    except httpx.RemoteProtocolError as error:
        raise TransportError(_protocol_kind(error), _told(error), sent=True) from error
    except httpx.HTTPError as error:
        raise TransportError(FailureKind.PROTOCOL, _told(error), sent=True) from error
    except UnicodeError as error:
        # Of a host name that cannot be looked up.
        raise TransportError(FailureKind.CONNECT_FAILED, _told(error), sent=False) from error


def _protocol_kind(error: httpx.RemoteProtocolError) -> FailureKind:
    # httpx has one class for a reply that broke off and for one that is not HTTP; only the text
    # differs.
    broke_off = "disconnected" in str(error) or "peer closed" in str(error)
    return FailureKind.CONNECTION_LOST if broke_off else FailureKind.PROTOCOL


def _told(error: Exception) -> str:
    """Say what happened; some of httpx's exceptions have no text but their name."""
    name = type(error).__name__
    return f"{name}: {error}" if str(error) else name


def _pool(client: httpx.AsyncClient) -> list[Any]:
    """List the connections of httpx's own pool. Only httpx's private names lead there."""
    transports = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    pools = [getattr(transport, "_pool", None) for transport in transports]
    return [connection for pool in pools for connection in getattr(pool, "connections", ())]


def _has_surplus(connection: Any) -> bool:
    exchange = getattr(getattr(connection, "_connection", None), "_h11_state", None)
    return bool(exchange is not None and exchange.trailing_data[0])


def _at_rest(connection: Any) -> bool:
    return bool(connection.is_idle() or connection.is_closed())


def _stuck(client: httpx.AsyncClient) -> bool:
    return not all(_at_rest(connection) for connection in _pool(client))
