"""A cancelled call ends, although the server always has more to send."""

from __future__ import annotations

import itertools

import anyio
import httpx
from anyio.abc import SocketStream

from _http.servers import Lane
from kaleden import FailureKind
from kaleden.http import AnyioTransport
from support import raw_server, read_request

ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"


async def send_endless(stream: SocketStream) -> None:
    """Send an endless body, in step with its reader in the same event loop."""
    await read_request(stream)
    await stream.send(ENDLESS)
    while True:
        await stream.send(b"x" * 2500)


async def test_endless_body_ends_in_time(lane: Lane) -> None:
    async with (
        raw_server(send_endless) as url,
        lane(url, max_body=2**40, timeout=0.2) as session,
    ):
        outcomes = await session.info(["a", "b"])
    assert [FailureKind.TIMED_OUT] * 2 == [each.kind for each in outcomes.failures.values()]


async def test_call_can_be_cancelled_within_an_endless_body(lane: Lane) -> None:
    scope = anyio.CancelScope()
    sent = 0

    async def cancel(stream: SocketStream) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send(ENDLESS)
        for sent in itertools.count():
            await stream.send(b"x" * 2500)
            if sent == 100:
                scope.cancel()

    async with raw_server(cancel) as url, lane(url, max_body=2**40) as session:
        with scope:
            await session.info("a")
    assert scope.cancelled_caught
    # The buffers of both ends can be filled in any case.
    assert 2500 * sent < 32 * 2**20


async def test_endless_stream_ends_when_its_reader_is_cancelled() -> None:
    taken = 0
    async with (
        raw_server(send_endless) as url,
        AnyioTransport() as transport,
        httpx.AsyncClient(transport=transport) as client,
        client.stream("GET", url) as reply,
    ):
        with anyio.CancelScope() as scope:
            async for _ in reply.aiter_raw():
                taken += 1
                if taken == 100:
                    scope.cancel()
    assert scope.cancelled_caught
    assert 100 == taken
