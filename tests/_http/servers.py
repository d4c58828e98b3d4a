"""Servers with scripted bytes, and sessions over each transport."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import httpx
from anyio.abc import SocketStream
from attrs import define, field

import kaleden
from _http.proxies import FakeProxy, open_proxy, proxy_contexts
from _http.tls import FakeTls
from kaleden._http import DirectTransport, Transport
from kaleden._http._httpx_adapter import HttpxTransport
from kaleden._http._transport import MAX_BODY
from support import read_request, session_object

TOKEN = "a-token"

Lane: TypeAlias = Callable[..., AbstractAsyncContextManager[kaleden.AsyncSession]]


@define
class FakeBearer:
    """Returns a token, and the next one after each refusal."""

    tokens: list[str] = field(factory=lambda: [TOKEN])

    async def token(self) -> str:
        return self.tokens[0]

    async def renew(self, refused: str) -> bool:
        if refused == self.tokens[0] and len(self.tokens) > 1:
            self.tokens.pop(0)
        return refused != self.tokens[0]


def alone(transport: Transport, concurrency: int, **options: Any) -> kaleden.AsyncSession:
    """A session without retries, so that a test sees each outcome of the transport."""
    options = {"retry": None, **options}
    return kaleden.AsyncSession(transport=transport, concurrency=concurrency, **options)


class BearerAuth(httpx.Auth):
    """Sends a token by way of httpx."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def direct(url: str, token: str | None, **options: Any) -> DirectTransport:
    bearer = None if token is None else FakeBearer([token])
    return DirectTransport(url, f"{url}/v1", bearer=bearer, **options)


def over_httpx(url: str, token: str | None, **options: Any) -> HttpxTransport:
    return HttpxTransport(url, f"{url}/v1", auth=BearerAuth(token), **options)


def lane_of(make: Callable[..., Any], proxy_scheme: str | None = None) -> Lane:
    """Return a function that opens a session over a transport of this kind.

    Args:
        make: makes the transport.
        proxy_scheme: that of a proxy to go through; it ends TLS, and goes on to a plain server.
    """

    @asynccontextmanager
    async def lane(
        url: str,
        token: str | None = TOKEN,
        *,
        concurrency: int = 32,
        max_body: int = MAX_BODY,
        **options: Any,
    ) -> AsyncGenerator[kaleden.AsyncSession]:
        async with AsyncExitStack() as stack:
            given: dict[str, Any] = {"connections": concurrency, "max_body": max_body}
            if proxy_scheme is not None:
                opening = open_proxy(FakeProxy(ends_tls=True), proxy_scheme)
                given["proxy"] = await stack.enter_async_context(opening)
                given["tls"] = FakeTls(proxy_contexts()[1])
                url = url.replace("http:", "https:")
            transport = await stack.enter_async_context(make(url, token, **given))
            yield await stack.enter_async_context(alone(transport, concurrency, **options))

    return lane


LANES: dict[str, Lane] = {
    "direct": lane_of(direct),
    "httpx": lane_of(over_httpx),
    "http proxy": lane_of(direct, "http"),
    "https proxy": lane_of(over_httpx, "https"),
}


def reply(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A complete response with its length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def describe(stream: SocketStream) -> None:
    """Send the requested session for every request of a connection."""
    while True:
        key = asked_for(await read_request(stream))
        await stream.send(reply(json.dumps(session_object(key)).encode()))


def always(answer: bytes) -> Callable[[SocketStream], Awaitable[None]]:
    """Send *answer* to one request, and close."""

    async def handler(stream: SocketStream) -> None:
        await read_request(stream)
        await stream.send(answer)

    return handler


def asked_for(request: bytes) -> str:
    """The session id in a request's path."""
    return request.split(b" ", 2)[1].rpartition(b"/")[2].decode()
