"""Servers over TLS, and contexts for both sides."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trustme
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream
from attrs import define

from kaleden._http import detect_truncation
from support import raw_server

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@define
class FakeTls:
    """Returns one context, which a test may replace."""

    now: ssl.SSLContext

    async def context(self) -> ssl.SSLContext:
        return self.now


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = detect_truncation(ssl.create_default_context())
    authority.configure_trust(context)
    return context


async def serve(stream: TLSStream) -> None:
    """Send a response to every request."""
    while True:
        await stream.receive()
        await stream.send(OK)


@asynccontextmanager
async def tls_server(
    context: ssl.SSLContext,
    handler: Callable[[TLSStream], Awaitable[None]] = serve,
    host: str = "127.0.0.1",
) -> AsyncIterator[str]:
    """A server over TLS; yields its URL."""

    async def handle(stream: SocketStream) -> None:
        # Handshakes that fail are part of the tests.
        with suppress(ssl.SSLError):
            wrapped: Any = await TLSStream.wrap(
                stream, server_side=True, ssl_context=context, standard_compatible=False
            )
            await handler(wrapped)

    async with raw_server(handle, host) as url:
        yield url.replace("http:", "https:")
