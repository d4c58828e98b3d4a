"""A small real proxy, over http and https, for tests."""

from __future__ import annotations

import functools
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import trustme
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from attrs import define, evolve, field

from _http.tls import FakeTls, client_context, server_context
from kaleden._auth._endpoint import parse_proxy
from kaleden._http import Proxy
from support import raw_server

ENDED = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ssl.SSLError,
    OSError,
)
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@functools.cache
def proxy_authority() -> trustme.CA:
    """The authority of all proxies, and of the servers behind a `FakeProxy` that ends TLS."""
    return trustme.CA()


@functools.cache
def proxy_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of the server side and the client side."""
    return server_context(proxy_authority()), client_context(proxy_authority())


@define
class FakeProxy:
    """Opens tunnels, forwards requests, and records the heads that it received.

    Args:
        ends_tls: whether it ends the TLS inside a tunnel, and goes on to the server in plain text.
        response: what to send after a CONNECT in place of a tunnel.
    """

    ends_tls: bool = False
    response: bytes | None = None
    seen: list[str] = field(factory=list)

    async def serve(self, stream: ByteStream) -> None:
        head = await receive_head(stream)
        self.seen.append(head.decode())
        if self.response is not None:
            await stream.send(self.response)
            return

        method, target, rest = head.split(b" ", 2)
        if method != b"CONNECT":
            await self._forward(stream, method, target, rest)
            return

        try:
            server = await connect_to(target)
        except OSError:
            await stream.send(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\nno")
            return

        async with server:
            await stream.send(ESTABLISHED)
            if self.ends_tls:
                stream = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=proxy_contexts()[0]
                )
            await relay(stream, server)
            # Ends the inner TLS with ``close_notify``, if there is one.
            if self.ends_tls:
                await stream.aclose()

    async def _forward(self, stream: ByteStream, method: bytes, target: bytes, rest: bytes) -> None:
        authority, _, path = target.removeprefix(b"http://").partition(b"/")
        async with await connect_to(authority) as server:
            await server.send(method + b" /" + path + b" " + rest)
            await relay(stream, server)


async def receive_head(stream: ByteStream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    return head


async def connect_to(authority: bytes) -> ByteStream:
    host, _, port = authority.decode().rpartition(":")
    return await anyio.connect_tcp(host.strip("[]"), int(port))


async def relay(one: ByteStream, other: ByteStream) -> None:
    """Pass bytes on in both directions until one side ends."""

    async def pump(source: ByteStream, sink: ByteStream) -> None:
        with suppress(*ENDED):
            while True:
                await sink.send(await source.receive())
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(pump, one, other)
        group.start_soon(pump, other, one)


@asynccontextmanager
async def open_proxy(fake: Any, scheme: str, userinfo: str = "") -> AsyncGenerator[Proxy]:
    """Open a proxy on this machine.

    Args:
        fake: the `FakeProxy`, or another object whose ``serve`` handles a connection.
        scheme: ``http`` or ``https``.
        userinfo: user and password for its URL, with an @ at the end.
    """

    async def handle(stream: Any) -> None:
        with suppress(*ENDED):
            if scheme == "https":
                stream = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=proxy_contexts()[0]
                )
            async with stream:
                await fake.serve(stream)

    async with raw_server(handle) as url:
        address = re.sub("^http://|/skaha$", "", url)
        proxy = parse_proxy(f"{scheme}://{userinfo}{address}", "proxy=")
        yield evolve(proxy, tls=FakeTls(proxy_contexts()[1]) if scheme == "https" else None)
