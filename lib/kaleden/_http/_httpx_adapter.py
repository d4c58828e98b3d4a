"""The transport for an ``httpx.Auth``: an httpx client over kaleden's own connections."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Self, cast, final

import httpx
from anyio import AsyncContextManagerMixin

from kaleden._errors import ConfigurationError
from kaleden._http._anyio_options import LazyTls
from kaleden._http._anyio_transport import PooledTransport
from kaleden._http._h1._connect import check_forwarded
from kaleden._http._h1._pool import Pool
from kaleden._http._h1._proxy import Proxy
from kaleden._http._h1._request_writer import origin_of
from kaleden._http._httpx_client import HttpAuth, exchange
from kaleden._http._transport import MAX_BODY, Tls, TransportStatistics
from kaleden._version import __version__
from kaleden._wire import Request, Response


@final
class HttpxTransport(AsyncContextManagerMixin):
    """Sends requests with an httpx client, so that an ``httpx.Auth`` sees each of them.

    The arguments are those of `DirectTransport`, with *auth* for its *bearer*.

    Raises:
        ConfigurationError: httpx cannot use *auth*.
    """

    def __init__(
        self,
        root: str,
        base: str,
        *,
        auth: HttpAuth | None = None,
        tls: Tls | None = None,
        proxy: Proxy | None = None,
        connections: int,
        max_body: int = MAX_BODY,
    ) -> None:
        self._root = root
        self._base = base
        self._max_body = max_body
        self._origin = origin_of(root)
        self._proxy = proxy
        # An auth may ask a server of its own over https, although this one has plain http.
        tls = tls or LazyTls(True, None, trust_env=True)
        self._transport = PooledTransport(Pool(connections, keep=connections), tls, proxy)
        try:
            self._client = httpx.AsyncClient(
                headers={"User-Agent": f"kaleden/{__version__}"},
                auth=cast("httpx.Auth | None", auth),
                transport=self._transport,
                # A cookie that the server sets would outlive the login that it was given for.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                # The caller has read the environment.
                trust_env=False,
            )
        except TypeError as error:
            raise ConfigurationError(f"httpx cannot use this auth: {type(auth)!r}") from error

    @asynccontextmanager
    async def __asynccontextmanager__(self) -> AsyncGenerator[Self]:
        async with self._client:
            yield self

    async def send(self, request: Request) -> Response:
        """Send *request* and read the whole response; see `Transport.send`."""
        url = self._base if request.versioned else self._root
        response = await exchange(httpx, self._client, url, request, self._max_body)
        check_forwarded(self._origin, self._proxy, response.status)
        return response

    def statistics(self) -> TransportStatistics:
        """Return the current state."""
        return self._transport.statistics()

    def __repr__(self) -> str:
        return f"<HttpxTransport {self._base}, {self.statistics().in_flight} in flight>"
