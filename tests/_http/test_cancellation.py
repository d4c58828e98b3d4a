"""Whoever is cancelled ends, though the server always has more to say."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from anyio.abc import SocketStream

from _http.servers import Lane
from kaleden import FailureKind
from kaleden._http._httpx_adapter import HeedfulBackend
from kaleden.http import AnyioTransport
from support import raw_server, read_request

ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"


class Torrent(httpcore.AsyncNetworkStream):
    """A stream that has bytes at once, however often it is read."""

    async def read(self, *args: Any, **_options: Any) -> bytes:
        return bytes(args[0])

    async def start_tls(self, *_args: Any, **_options: Any) -> httpcore.AsyncNetworkStream:
        return self

    def get_extra_info(self, info: str) -> Any:
        return info


class Torrents(httpcore.AsyncNetworkBackend):
    async def connect_tcp(self, *_args: Any, **_options: Any) -> httpcore.AsyncNetworkStream:
        return Torrent()

    async def connect_unix_socket(
        self, *_args: Any, **_options: Any
    ) -> httpcore.AsyncNetworkStream:
        return Torrent()


@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
async def test_a_stream_that_never_runs_dry_can_be_cancelled(way: str) -> None:
    backend = HeedfulBackend(Torrents())
    if way == "unix":
        stream = await backend.connect_unix_socket("/nowhere")
    else:
        stream = await backend.connect_tcp("nowhere.invalid", 1)
    if way == "tls":
        stream = await stream.start_tls(None)  # type: ignore[arg-type]
    assert "socket" == stream.get_extra_info("socket")
    with anyio.CancelScope() as scope:
        assert bytes(2) == await stream.read(2)
        scope.cancel()
        await stream.read(2)
        pytest.fail("a cancelled read went on")
    assert scope.cancelled_caught


async def drown(stream: SocketStream) -> None:
    """Answer with a body that goes on, in step with whoever reads it in the same event loop."""
    await read_request(stream)
    await stream.send(ENDLESS)
    while True:
        await stream.send(b"x" * 2500)


async def test_a_body_without_end_ends_in_time(lane: Lane) -> None:
    async with (
        raw_server(drown) as url,
        lane(url, max_body=2**40, timeout=0.2) as session,
    ):
        outcomes = await session.info(["a", "b"])
    assert [FailureKind.TIMED_OUT] * 2 == [each.kind for each in outcomes.failures.values()]


async def test_a_call_is_left_in_the_middle_of_a_body_without_end(lane: Lane) -> None:
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
    # What fits into the buffers of both ends may leave, whoever reads.
    assert 2500 * sent < 32 * 2**20


async def test_a_stream_without_end_is_left_when_its_reader_is_cancelled() -> None:
    taken = 0
    async with (
        raw_server(drown) as url,
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
