"""The adapter over httpx, for what httpx has to see: an ``httpx.Auth``, a proxy.

httpx 0.28's pool can lose a connection slot for ever when a request is cancelled while it waits for
one, or by asyncio's native cancellation while it connects. Three rules keep clear of that: the pool
is never smaller than the client's gate, so nobody waits in it; every request runs in a child of an
anyio task group, so it is only ever cancelled by a scope; and the pool is looked at whenever it
should be at rest, and replaced if a slot is stuck.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Self, cast, final

import anyio
import httpcore
import httpx
from anyio import AsyncContextManagerMixin
from anyio.lowlevel import checkpoint_if_cancelled
from attrs import define

from kaleden._errors import ConfigurationError
from kaleden._http._h1._tls import detect_truncation
from kaleden._http._httpx_client import HttpAuth, exchange
from kaleden._http._transport import MAX_BODY, Bearer, Tls, TransportStatistics, send_as
from kaleden._version import __version__
from kaleden._wire import Request, Response


@final
class HeedfulBackend(httpcore.AsyncNetworkBackend):
    """Connects as *backend* does; what it makes is cancelled before a read, if not in one.

    Args:
        backend: makes the connections.
    """

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Connect over TCP."""
        return _HeedfulStream(await self._backend.connect_tcp(*args, **options))

    async def connect_unix_socket(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        """Connect over a socket in the file system."""
        return _HeedfulStream(await self._backend.connect_unix_socket(*args, **options))

    async def sleep(self, seconds: float) -> None:
        """Wait, in seconds."""
        await self._backend.sleep(seconds)


@final
class _HeedfulStream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, *args: Any, **options: Any) -> bytes:
        await checkpoint_if_cancelled()
        received = await self._stream.read(*args, **options)
        if not received:
            self._check_end()
        return received

    async def write(self, *args: Any, **options: Any) -> None:
        await self._stream.write(*args, **options)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(self, *args: Any, **options: Any) -> httpcore.AsyncNetworkStream:
        return _HeedfulStream(await self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _check_end(self) -> None:
        """Raise `httpcore.ReadError` if TLS ended without ``close_notify``."""
        tls = self.get_extra_info("ssl_object")
        if tls is not None:
            try:
                tls.read(1)  # Returns nothing after ``close_notify``.
            except ssl.SSLError as error:
                raise httpcore.ReadError(str(error)) from error


CLOSE_TIMEOUT = 5.0
"""Seconds for the connections to be closed, TLS farewells included."""


@define(eq=False)
class _Pool:
    """An httpx client, which is its connections.

    Attributes:
        client: the client.
        context: what its connections over https are made with.
        in_flight: exchanges under way.
    """

    client: httpx.AsyncClient
    context: ssl.SSLContext | None
    in_flight: int = 0


@final
class HttpxTransport(AsyncContextManagerMixin):
    """Carries requests with httpx, over HTTP/1.1 connections that are kept.

    Args:
        root: the server's URL without version, for what has no version.
        base: the URL that versioned resources are under.
        bearer: tells the token to send; None to send none.
        tls: what connections over https are made with; None for plain http.
        auth: an ``httpx.Auth`` that sees each request.
        proxy: the URL of a proxy.
        connections: connections at most; the client's gate must not admit more.
        max_body: bytes of one reply, at most.

    Raises:
        ConfigurationError: httpx cannot work with the auth or the proxy.
    """

    def __init__(
        self,
        root: str,
        base: str,
        *,
        bearer: Bearer | None = None,
        tls: Tls | None = None,
        auth: HttpAuth | None = None,
        proxy: str | None = None,
        connections: int,
        max_body: int = MAX_BODY,
    ) -> None:
        self._root = root
        self._base = base
        self._bearer = bearer
        self._tls = tls
        self._auth = auth
        self._proxy = None if proxy is None else _new_proxy(proxy)
        self._connections = connections
        self._max_body = max_body
        self._replaced = 0
        self._retired: list[_Pool] = []
        # Made once for nothing, so that what httpx cannot work with is told before any request.
        self._pool = self._new_pool(None)

    def _new_pool(self, context: ssl.SSLContext | None) -> _Pool:
        try:
            return _Pool(self._new_client(context), context)
        except (httpx.InvalidURL, TypeError, ValueError, ImportError) as error:
            raise _unusable(error) from error

    def _new_client(self, context: ssl.SSLContext | None) -> httpx.AsyncClient:
        if context is None:
            # Not used, as the server is asked over plain http; httpx's own takes long to make.
            context = detect_truncation(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        client = httpx.AsyncClient(
            headers={"User-Agent": f"kaleden/{__version__}"},
            auth=cast("httpx.Auth | None", self._auth),
            proxy=self._proxy,
            verify=context,
            # A cookie that the server sets would outlive the token that it was given for.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            limits=httpx.Limits(
                max_connections=self._connections, max_keepalive_connections=self._connections
            ),
            # Whoever makes a transport has looked at the environment.
            trust_env=False,
        )
        for pool in _pools(client):
            if backend := getattr(pool, "_network_backend", None):
                pool._network_backend = HeedfulBackend(backend)
        return client

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        try:
            yield self
        finally:
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                for pool in (*self._retired, self._pool):
                    await pool.client.aclose()

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole reply; see `Transport.send`."""
        return await send_as(self._bearer, self._attempt, request)

    async def _attempt(self, request: Request, token: str | None) -> Response:
        pool = await self._current_pool()
        pool.in_flight += 1
        url = self._base if request.versioned else self._root
        try:
            return await exchange(httpx, pool.client, url, request, token, self._max_body)
        finally:
            pool.in_flight -= 1
            await self._tidy(pool)

    async def _current_pool(self) -> _Pool:
        """Return the pool, a new one if connections are to be made with something else by now."""
        if self._tls is not None:
            context = await self._tls.context()
            if context is not self._pool.context:
                self._replace(self._new_pool(context))
        return self._pool

    def _replace(self, pool: _Pool) -> None:
        self._retired.append(self._pool)
        self._pool = pool

    async def _tidy(self, pool: _Pool) -> None:
        if pool is self._pool and pool.in_flight == 0 and _stuck(pool.client):
            self._replaced += 1
            self._replace(self._new_pool(pool.context))
        await _drop_what_has_more(pool.client)
        for retired in [one for one in self._retired if one.in_flight == 0]:
            self._retired.remove(retired)
            with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await retired.client.aclose()

    def statistics(self) -> TransportStatistics:
        """Tell the transport's state now."""
        pools = (*self._retired, self._pool)
        in_flight = sum(pool.in_flight for pool in pools)
        connections = [connection for pool in pools for connection in _connections(pool.client)]
        busy = sum(not _at_rest(connection) for connection in connections)
        return TransportStatistics(
            in_flight=in_flight,
            connections=len(connections),
            stuck=max(0, busy - in_flight),
            replaced=self._replaced,
        )

    def __repr__(self) -> str:
        return f"<HttpxTransport {self._base}, {self.statistics().in_flight} in flight>"


def _new_proxy(url: str) -> httpx.Proxy:
    try:
        proxy = httpx.Proxy(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise _unusable(error) from error

    if proxy.url.scheme == "https":
        proxy.ssl_context = detect_truncation(httpcore.default_ssl_context())
    return proxy


def _unusable(error: Exception) -> ConfigurationError:
    return ConfigurationError(f"httpx cannot use this proxy or auth: {type(error).__name__}")


def _pools(client: httpx.AsyncClient) -> list[Any]:
    """List httpx's own pools. Only httpx's private names lead there."""
    transports = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    return [getattr(transport, "_pool", None) for transport in transports]


def _connections(client: httpx.AsyncClient) -> list[Any]:
    return [
        connection for pool in _pools(client) for connection in getattr(pool, "connections", ())
    ]


async def _drop_what_has_more(client: httpx.AsyncClient) -> None:
    """Close idle connections with bytes nobody asked for: they would answer the next one."""
    for connection in _connections(client):
        if connection.is_idle() and _has_surplus(connection):
            await connection.aclose()


def _has_surplus(connection: Any) -> bool:
    exchange = getattr(getattr(connection, "_connection", None), "_h11_state", None)
    return bool(exchange is not None and exchange.trailing_data[0])


def _at_rest(connection: Any) -> bool:
    return bool(connection.is_idle() or connection.is_closed())


def _stuck(client: httpx.AsyncClient) -> bool:
    return not all(_at_rest(connection) for connection in _connections(client))
