"""Faults on real connections: between a client and a server that know nothing of them."""

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
from kaleden.testing._proxy._link import hang_up
from support import raw_server, read_request

ASK = b"GET /skaha/v1/session HTTP/1.1\r\nhost: here\r\n\r\n"
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
IMAGE = "images.canfar.net/skaha/astroml:latest"


@define
class Stage:
    """A server that answers all requests alike, a proxy before it, and what the server heard."""

    proxy: FaultProxy
    heard: list[bytes] = field(factory=list)

    async def dial(self) -> SocketStream:
        port = int(self.proxy.url.split(":")[2].split("/")[0])
        return await anyio.connect_tcp("127.0.0.1", port)

    async def ask(self, times: int = 1) -> bytes:
        """Say a request as often, on one connection; give all that comes until its end."""
        heard = b""
        async with await self.dial() as stream:
            with anyio.fail_after(60):
                for _ in range(times):
                    await stream.send(ASK)
                    heard += await stream.receive()
                await stream.send_eof()
                async for chunk in stream:
                    heard += chunk
        return heard


@asynccontextmanager
async def staged(*faults: Fault, seed: int = 0) -> AsyncGenerator[Stage]:
    heard: list[bytes] = []

    async def answer(stream: SocketStream) -> None:
        while True:
            heard.append(await read_request(stream))
            await stream.send(REPLY)

    async with raw_server(answer) as url, FaultProxy(url, FaultPlan(faults, seed)) as proxy:
        yield Stage(proxy, heard)


async def test_without_faults_all_passes_both_ways_and_ends() -> None:
    async with staged() as stage:
        assert 3 * REPLY == await stage.ask(3)
        assert 3 * [ASK] == stage.heard
        assert (1, {"list": 3}, {}) == (
            stage.proxy.connections,
            stage.proxy.exchanges,
            stage.proxy.done,
        )


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (Fault("refused"), 0),
        (Fault("reset-before"), 0),
        (Fault("reset-before", size=20), 0),
        (Fault("reset-after"), 1),
    ],
)
async def test_a_reset_is_a_reset(fault: Fault, heard: int) -> None:
    async with staged(fault) as stage:
        with pytest.raises(anyio.BrokenResourceError):
            await stage.ask()
        assert heard == len(stage.heard)
        assert {fault.trouble: 1} == stage.proxy.done


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("half-body", size=20), REPLY[:20]),
        (Fault("half-body"), REPLY[:-5]),
        (Fault("wrong-length"), REPLY.replace(b"10\r", b"11\r")),
        (Fault("slow", size=7, seconds=0.001), REPLY),
        (Fault("duplicate"), 2 * REPLY),
        (Fault("delay", seconds=0.01), REPLY),
    ],
)
async def test_a_reply_comes_as_the_plan_says_to_its_last_byte(fault: Fault, said: bytes) -> None:
    async with staged(fault) as stage:
        assert said == await stage.ask()
        assert {fault.trouble: 1} == stage.proxy.done


@pytest.mark.parametrize("trouble", ["busy", "error-before", "error-after", "html"])
async def test_the_proxy_may_answer_in_the_servers_place(trouble: str) -> None:
    async with staged(Fault(trouble)) as stage:
        reply = await stage.ask()
        assert b"\r\nconnection: close\r\n" in reply
        assert (trouble in {"error-after", "html"}) == bool(stage.heard)


@pytest.mark.parametrize("trouble", ["stall", "stall-after"])
async def test_who_stalls_says_nothing_until_the_client_leaves(trouble: str) -> None:
    async with staged(Fault(trouble)) as stage:
        async with await stage.dial() as stream, anyio.create_task_group() as group:
            received: list[bytes] = []

            async def receive() -> None:
                received.append(await stream.receive())

            group.start_soon(receive)
            await stream.send(ASK)
            with anyio.fail_after(60):
                while stage.proxy.done != {trouble: 1}:
                    await checkpoint()
            # Data sent over loopback arrives within a few iterations of the event loop.
            for _ in range(20):
                await checkpoint()
            assert [] == received
            group.cancel_scope.cancel()


async def test_only_the_exchange_that_is_meant_is_befallen() -> None:
    async with staged(Fault("html", on="list", nth=2)) as stage:
        heard = await stage.ask(2)
        assert heard.startswith(REPLY + b"HTTP/1.1 200 ")
        assert REPLY == await stage.ask()


async def test_the_plan_can_be_changed_on_the_way() -> None:
    async with staged() as stage:
        assert REPLY == await stage.ask()
        stage.proxy.faults = FaultPlan([Fault("half-body", size=4)])
        assert REPLY[:4] == await stage.ask()
        assert 1 == len(stage.proxy.faults.faults)
        stage.proxy.faults = FaultPlan()
        assert REPLY == await stage.ask()


async def test_the_same_seed_makes_the_same_trouble() -> None:
    async def run(seed: int) -> list[bytes]:
        chance = Fault("garbage", size=40, probability=0.5)
        async with staged(chance, seed=seed) as stage:
            return [await stage.ask() for _ in range(8)]

    first = await run(3)
    assert first == await run(3)
    assert first != await run(4)
    assert 0 < first.count(REPLY) < 8


async def test_a_server_that_is_not_there_is_a_reset() -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)
    async with FaultProxy(f"http://127.0.0.1:{port}/") as proxy:
        with pytest.raises(anyio.BrokenResourceError):
            await Stage(proxy).ask()


async def test_what_a_server_says_first_passes() -> None:
    async def greet(stream: SocketStream) -> None:
        await stream.send(b"hello")

    async with raw_server(greet) as url:
        async with FaultProxy(url, FaultPlan([Fault("reset-after")])) as proxy:
            async with await Stage(proxy).dial() as stream:
                assert b"hello" == await stream.receive()
                with pytest.raises(anyio.EndOfStream):
                    await stream.receive()


async def test_a_server_that_breaks_off_breaks_off_for_the_client() -> None:
    async with raw_server(anyio.abc.SocketStream.aclose) as url, FaultProxy(url) as proxy:
        assert b"" == await until_end(await Stage(proxy).dial())


async def test_a_server_that_resets_resets_the_client() -> None:
    async def reset(stream: SocketStream) -> None:
        await stream.receive()
        await hang_up(stream, reset=True)

    async with raw_server(reset) as url, FaultProxy(url) as proxy:
        with pytest.raises(anyio.BrokenResourceError):
            await Stage(proxy).ask()


async def until_end(stream: SocketStream) -> bytes:
    async with stream:
        return b"".join([chunk async for chunk in stream])


def sockets() -> set[str]:
    """What this process has open, as the system tells it."""
    names = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.add(os.readlink(link))
    return {name for name in names if name.startswith("socket:")}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell")
async def test_leaving_ends_all_connections_and_leaves_nothing() -> None:
    async def listen(stream: SocketStream) -> None:
        await until_end(stream)

    async with raw_server(listen) as url:
        before = sockets()
        async with FaultProxy(url) as proxy:
            streams = [await Stage(proxy).dial() for _ in range(3)]
            for stream in streams:
                await stream.send(ASK)
            while proxy.exchanges["list"] < 3:
                await checkpoint()
        for stream in streams:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
        with anyio.fail_after(60):
            while sockets() != before:
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
async def test_what_cannot_be_done_is_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


async def test_it_is_entered_once_and_has_a_url_then() -> None:
    proxy = FaultProxy("http://here:1/path")
    with pytest.raises(RuntimeError, match="entered"):
        _ = proxy.url
    async with proxy:
        assert proxy.url.endswith("/path")
        with pytest.raises(RuntimeError, match="entered"):
            await proxy.__aenter__()
    assert "<FaultProxy to here:1, no faults yet>" == repr(proxy)


async def test_a_launch_whose_reply_is_lost_on_the_way_is_found_again() -> None:
    plan = FaultPlan([Fault("reset-after", on="create", nth=1)])
    async with LocalPlatform() as platform, FaultProxy(platform.url, plan) as proxy:
        async with kaleden.AsyncSession(proxy.url, platform.token) as session:
            async with session.scope() as scope:
                created = await scope.create("fits", IMAGE, cmd="sleep", args="100", replicas=2)
                assert created.ok
                assert 2 == len(await session.fetch())
            assert [] == await session.fetch()
    assert {FaultKind.RESET_AFTER: 1} == proxy.done


async def test_a_client_over_tls_meets_faults_too() -> None:
    async with LocalPlatform(tls=True) as platform:
        async with FaultProxy(platform.url, FaultPlan([Fault("reset-after", nth=3)])) as proxy:
            async with await Stage(proxy).dial() as stream:
                tls = await anyio.streams.tls.TLSStream.wrap(
                    stream, hostname="localhost", ssl_context=platform.ssl_context()
                )
                await tls.send(ASK)
                with pytest.raises(anyio.BrokenResourceError):
                    for _ in range(9):
                        await tls.receive()
                        await tls.send(ASK)
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
async def test_a_client_tells_what_befell_it(fault: Fault, kind: FailureKind) -> None:
    async with LocalPlatform() as platform, FaultProxy(platform.url, FaultPlan([fault])) as proxy:
        async with kaleden.AsyncSession(proxy.url, platform.token, retry=None) as session:
            [failure] = (await session.info(["x"])).failures.values()
    assert kind is failure.kind
