"""Tests of `FaultProxy`: faults on the connections between a client and a server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from anyio.lowlevel import checkpoint
from attrs import define, field

import kaleden
from kaleden import FailureKind
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultKind, FaultPlan, FaultProxy
from kaleden.testing._proxy._link import close_streams
from support import FULL_IMAGE, raw_server, read_request

REQUEST = b"GET /skaha/v1/session HTTP/1.1\r\nhost: here\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"


@define
class ProxySetup:
    """A proxy before a server that sends the same response to each request.

    Attributes:
        proxy: the proxy.
        received: the requests that the server has received.
    """

    proxy: FaultProxy
    received: list[bytes] = field(factory=list)

    async def connect(self) -> SocketStream:
        port = int(self.proxy.url.split(":")[2].split("/")[0])
        return await anyio.connect_tcp("127.0.0.1", port)

    async def send(self, times: int = 1) -> bytes:
        """Send the request several times on one connection; return all that is received."""
        received = b""
        async with await self.connect() as stream:
            with anyio.fail_after(60):
                for _ in range(times):
                    await stream.send(REQUEST)
                    received += await stream.receive()
                await stream.send_eof()
                async for chunk in stream:
                    received += chunk
        return received


@asynccontextmanager
async def open_proxy(*faults: Fault, seed: int = 0) -> AsyncGenerator[ProxySetup]:
    received: list[bytes] = []

    async def respond(stream: SocketStream) -> None:
        while True:
            received.append(await read_request(stream))
            await stream.send(RESPONSE)

    async with raw_server(respond) as url, FaultProxy(url, FaultPlan(faults, seed)) as proxy:
        yield ProxySetup(proxy, received)


async def test_proxy_without_faults_forwards_everything() -> None:
    async with open_proxy() as setup:
        assert 3 * RESPONSE == await setup.send(3)
        assert 3 * [REQUEST] == setup.received
        assert (1, {"list": 3}, {}) == (
            setup.proxy.connections,
            setup.proxy.exchanges,
            setup.proxy.done,
        )


@pytest.mark.parametrize(
    ("fault", "received"),
    [
        (Fault("refused"), 0),
        (Fault("reset-before"), 0),
        (Fault("reset-before", size=20), 0),
        (Fault("reset-after"), 1),
    ],
)
async def test_reset_fault_resets_the_connection(fault: Fault, received: int) -> None:
    async with open_proxy(fault) as setup:
        with pytest.raises(anyio.BrokenResourceError):
            await setup.send()
        assert received == len(setup.received)
        assert {fault.trouble: 1} == setup.proxy.done


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("half-body", size=20), RESPONSE[:20]),
        (Fault("half-body"), RESPONSE[:-5]),
        (Fault("wrong-length"), RESPONSE.replace(b"10\r", b"11\r")),
        (Fault("slow", size=7, seconds=0.001), RESPONSE),
        (Fault("duplicate"), 2 * RESPONSE),
        (Fault("delay", seconds=0.01), RESPONSE),
    ],
)
async def test_fault_changes_the_response_as_planned(fault: Fault, expected: bytes) -> None:
    async with open_proxy(fault) as setup:
        assert expected == await setup.send()
        assert {fault.trouble: 1} == setup.proxy.done


@pytest.mark.parametrize("trouble", ["busy", "error-before", "error-after", "html"])
async def test_proxy_responds_instead_of_the_server(trouble: str) -> None:
    async with open_proxy(Fault(trouble)) as setup:
        response = await setup.send()
        assert b"\r\nconnection: close\r\n" in response
        assert (trouble in {"error-after", "html"}) == bool(setup.received)


@pytest.mark.parametrize("trouble", ["stall", "stall-after"])
async def test_stall_fault_sends_nothing_until_client_closes(trouble: str) -> None:
    async with open_proxy(Fault(trouble)) as setup:
        async with await setup.connect() as stream, anyio.create_task_group() as group:
            received: list[bytes] = []

            async def receive() -> None:
                received.append(await stream.receive())

            group.start_soon(receive)
            await stream.send(REQUEST)
            with anyio.fail_after(60):
                while setup.proxy.done != {trouble: 1}:
                    await checkpoint()
            # Data sent over loopback arrives within a few iterations of the event loop.
            for _ in range(20):
                await checkpoint()
            assert [] == received
            group.cancel_scope.cancel()


async def test_fault_applies_to_selected_exchange_only() -> None:
    async with open_proxy(Fault("html", on="list", nth=2)) as setup:
        received = await setup.send(2)
        assert received.startswith(RESPONSE + b"HTTP/1.1 200 ")
        assert RESPONSE == await setup.send()


async def test_plan_can_be_changed_while_in_use() -> None:
    async with open_proxy() as setup:
        assert RESPONSE == await setup.send()
        setup.proxy.faults = FaultPlan([Fault("half-body", size=4)])
        assert RESPONSE[:4] == await setup.send()
        assert 1 == len(setup.proxy.faults.faults)
        setup.proxy.faults = FaultPlan()
        assert RESPONSE == await setup.send()


async def test_same_seed_gives_same_faults() -> None:
    async def run(seed: int) -> list[bytes]:
        chance = Fault("garbage", size=40, probability=0.5)
        async with open_proxy(chance, seed=seed) as setup:
            return [await setup.send() for _ in range(8)]

    first = await run(3)
    assert first == await run(3)
    assert first != await run(4)
    assert 0 < first.count(RESPONSE) < 8


async def test_unreachable_server_resets_the_client() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    async with FaultProxy(f"http://127.0.0.1:{port}/") as proxy:
        with pytest.raises(anyio.BrokenResourceError):
            await ProxySetup(proxy).send()


async def test_data_sent_first_by_server_is_forwarded() -> None:
    async def greet(stream: SocketStream) -> None:
        await stream.send(b"hello")

    async with raw_server(greet) as url:
        async with FaultProxy(url, FaultPlan([Fault("reset-after")])) as proxy:
            async with await ProxySetup(proxy).connect() as stream:
                assert b"hello" == await stream.receive()
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()


async def test_end_of_server_stream_is_forwarded() -> None:
    async with raw_server(anyio.abc.SocketStream.aclose) as url, FaultProxy(url) as proxy:
        assert b"" == await read_until_end(await ProxySetup(proxy).connect())


async def test_reset_by_server_is_forwarded() -> None:
    async def reset(stream: SocketStream) -> None:
        await stream.receive()
        await close_streams(stream, reset=True)

    async with raw_server(reset) as url, FaultProxy(url) as proxy:
        with pytest.raises(anyio.BrokenResourceError):
            await ProxySetup(proxy).send()


async def read_until_end(stream: SocketStream) -> bytes:
    async with stream:
        return b"".join([chunk async for chunk in stream])


def list_sockets() -> set[str]:
    """Return the open sockets of this process."""
    names = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(os.readlink(link))
    return {name for name in names if name.startswith("socket:")}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_leaving_the_block_closes_all_connections() -> None:
    async def listen(stream: SocketStream) -> None:
        await read_until_end(stream)

    async with raw_server(listen) as url:
        before = list_sockets()
        async with FaultProxy(url) as proxy:
            streams = [await ProxySetup(proxy).connect() for _ in range(3)]
            for stream in streams:
                await stream.send(REQUEST)
            while proxy.exchanges["list"] < 3:
                await checkpoint()
        for stream in streams:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
        with anyio.fail_after(60):
            while list_sockets() != before:
                await checkpoint()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FaultProxy("here"), "host and port"),
        (lambda: FaultProxy("tcp://here"), "host and port"),
        (lambda: FaultProxy("http://here", FaultPlan([Fault("lie")])), "lie"),
        (lambda: FaultProxy("http://here", FaultPlan([Fault("lag")])), "lag"),
        (lambda: FaultProxy("http://here", FaultPlan([Fault("refused", "list")])), "leave `on`"),
    ],
)
async def test_invalid_target_or_plan_is_rejected(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


async def test_proxy_is_entered_once_and_then_has_a_url() -> None:
    proxy = FaultProxy("http://here:1/path")
    with pytest.raises(RuntimeError, match="entered"):
        _ = proxy.url
    async with proxy:
        assert proxy.url.endswith("/path")
        with pytest.raises(RuntimeError, match="entered"):
            await proxy.__aenter__()
    assert "<FaultProxy to here:1, no faults yet>" == repr(proxy)


async def test_launch_with_lost_response_is_reconciled() -> None:
    plan = FaultPlan([Fault("reset-after", on="create", nth=1)])
    async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
        async with kaleden.AsyncSession(proxy.url, platform.token) as session:
            async with session.scope() as scope:
                created = await scope.create(
                    "fits", FULL_IMAGE, cmd="sleep", args="100", replicas=2
                )
                assert created.ok
                assert 2 == len(await session.fetch())
            assert [] == await session.fetch()
    assert {FaultKind.RESET_AFTER: 1} == proxy.done


async def test_faults_apply_to_tls_connections() -> None:
    async with LocalPlatform(tls=True) as platform:
        async with FaultProxy(platform.url, FaultPlan([Fault("reset-after", nth=3)])) as proxy:
            async with await ProxySetup(proxy).connect() as stream:
                tls = await anyio.streams.tls.TLSStream.wrap(
                    stream, hostname="localhost", ssl_context=platform.ssl_context()
                )
                await tls.send(REQUEST)
                with pytest.raises(anyio.BrokenResourceError):
                    for _ in range(9):
                        await tls.receive()
                        await tls.send(REQUEST)
    assert {"other"} == proxy.exchanges.keys()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("refused"), FailureKind.CONNECTION_LOST),
        (Fault("half-body"), FailureKind.CONNECTION_LOST),
        (Fault("wrong-length"), FailureKind.CONNECTION_LOST),
        (Fault("garbage"), FailureKind.PROTOCOL),
    ],
)
async def test_client_reports_failure_kind_of_fault(fault: Fault, kind: FailureKind) -> None:
    async with LocalPlatform() as platform, FaultProxy(platform.url, FaultPlan([fault])) as proxy:
        async with kaleden.AsyncSession(proxy.url, platform.token, retry=None) as session:
            [failure] = (await session.info(["x"])).failures.values()
    assert kind is failure.kind
