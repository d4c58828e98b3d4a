"""Hostile and broken servers: a client stays bounded, and keeps its secrets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from anyio.from_thread import start_blocking_portal

import kaleden
from _http.servers import Lane
from kaleden import Failure, FailureKind
from kaleden.local import LocalPlatform
from kaleden.testing import Fault, FaultPlan, FaultProxy
from support import raw_server, read_request

IMAGE = "images.canfar.net/skaha/astroml:latest"
OK = b"HTTP/1.1 200 OK\r\n"
BRIEF: dict[str, Any] = {"timeout": 0.3, "retry": None}
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

# More bytes than the buffers of two connections hold at both ends.
BUFFERS = 32 * 2**20


def endless(*pieces: bytes) -> Iterator[bytes]:
    """The first pieces once, and the last for ever."""
    return itertools.chain(pieces, itertools.repeat(pieces[-1]))


# The pieces sent after a request, endless if the client allows it.
ATTACKS = {
    "headers": lambda: endless(OK, b"x-a: b\r\n" * 1000),
    "one-header": lambda: endless(OK + b"x-a: ", b"a" * 10_000),
    "status-line": lambda: endless(b"HTTP/1.1 200 ", b"O" * 10_000),
    "interim": lambda: endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "interim-headers": lambda: endless(b"HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n" * 100),
    "body": lambda: endless(OK + b"\r\n", b"x" * 10_000),
    "long-body": lambda: endless(OK + b"content-length: 99999999999\r\n\r\n", b"x" * 10_000),
    "chunks": lambda: endless(CHUNKED, b"3e8\r\n" + b"x" * 1000 + b"\r\n"),
    "tiny-chunks": lambda: endless(CHUNKED, b"1\r\nx\r\n" * 1000),
    "chunk-extension": lambda: endless(CHUNKED + b"1;", b"a=b;" * 1000),
    "chunk-size": lambda: endless(CHUNKED, b"0" * 1000),
    "trailers": lambda: endless(CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-a: b\r\n" * 1000),
    "chunk-garbage": lambda: iter([CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"]),
    "chunk-overflow": lambda: iter([CHUNKED + b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n"]),
    "negative-length": lambda: iter([OK + b"content-length: -1\r\n\r\n{}"]),
    "two-lengths": lambda: iter([OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"]),
    "nulls": lambda: endless(b"\0" * 10_000),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_endless_response_is_ended_and_costs_no_connection(lane: Lane, attack: str) -> None:
    sent = 0

    async def answer(stream: SocketStream) -> None:
        nonlocal sent
        await read_request(stream)
        for piece in ATTACKS[attack]():
            await stream.send(piece)
            sent += len(piece)

    # Some attacks are valid HTTP, and only the time of the attempt ends them.
    async with raw_server(answer) as url, lane(url, max_body=100_000, **BRIEF) as session:
        with anyio.fail_after(60):
            outcomes = await session.info(["a", "b"])
        assert 2 == len(outcomes.failures)
        for failure in outcomes.failures.values():
            assert failure.kind in {
                FailureKind.PROTOCOL,
                FailureKind.CONNECTION_LOST,
                FailureKind.TIMED_OUT,
            }
            assert len(failure.message) < 1000
        # The bytes that the server could send bound those that were received.
        assert sent < BUFFERS
        statistics = session.statistics()
        assert statistics.transport is not None
        assert (0, 0) == (statistics.transport.stuck, statistics.transport.in_flight)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(lane: Lane, status: int) -> None:
    visits: list[bytes] = []
    asked: list[bytes] = []

    async def trap(stream: SocketStream) -> None:
        visits.append(await read_request(stream))

    async with raw_server(trap) as elsewhere:

        async def redirect(stream: SocketStream) -> None:
            while True:
                asked.append(await read_request(stream))
                await stream.send(
                    b"HTTP/1.1 %d Moved\r\nlocation: %s/v1/session\r\ncontent-length: 0\r\n\r\n"
                    % (status, elsewhere.encode())
                )

        async with raw_server(redirect) as url, lane(url, token="s3cret") as session:
            [read] = await session.info("a")
            [launched] = await session.create("fits", IMAGE, cmd="true")
    for outcome in (read, launched):
        assert isinstance(outcome, Failure)
        assert "s3cret" not in repr(outcome)
    assert FailureKind.PROTOCOL is read.kind  # type: ignore[union-attr]
    assert [] == visits
    assert 1 == sum(request.startswith(b"POST") for request in asked)


def plan(seed: int) -> FaultPlan:
    """A plan with every kind of fault."""
    troubles = [
        Fault("refused", probability=0.04),
        Fault("reset-before", probability=0.04, size=60),
        Fault("reset-after", probability=0.04),
        Fault("reset-after", "create", probability=0.2, size=40),
        Fault("half-body", probability=0.04),
        Fault("wrong-length", probability=0.04),
        Fault("garbage", probability=0.04, size=30),
        Fault("duplicate", probability=0.04),
        Fault("error-after", "create", probability=0.15),
        Fault("html", "destroy", probability=0.1),
        Fault("delay", probability=0.2, jitter=0.01),
    ]
    return FaultPlan(troubles, seed)


@contextmanager
def bad_wire(seed: int) -> Iterator[tuple[LocalPlatform, FaultProxy]]:
    """A platform behind a proxy, in a thread: on uvloop, closed sockets outlive a test."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(LocalPlatform(grace=0.1)) as platform,
        portal.wrap_async_context_manager(FaultProxy(platform.url, plan(seed))) as proxy,
    ):
        yield platform, proxy


async def launch_in_a_scope(seed: int) -> None:
    """Launch with faults, and check that the scope names all that is left."""
    with bad_wire(seed) as (platform, proxy):
        async with kaleden.AsyncSession(
            proxy.url, platform.token, settle=0.2, retry=kaleden.RetryPolicy(base=0.01)
        ) as session:
            survivors: tuple[str, ...] = ()
            names: tuple[str, ...] = ()
            try:
                async with session.scope(grace=3) as scope:
                    created = await scope.create("fits", IMAGE, cmd="sleep", args="99", replicas=4)
                    assert 4 == len(created)
                    assert len(platform.sessions()) <= 4
            except kaleden.ScopeError as error:
                survivors, names = error.survivors, error.launches
        left = [
            s for s in platform.sessions() if s.id not in survivors and s.spec.name not in names
        ]
        assert [] == left, proxy.done


@pytest.mark.parametrize("seed", [0, 1, 3])
async def test_scope_with_faults_names_all_that_it_leaves(seed: int) -> None:
    await launch_in_a_scope(seed)


@pytest.mark.slow
async def test_scope_with_many_plans_of_faults_names_all_that_it_leaves() -> None:
    for seed in range(100, 115):
        await launch_in_a_scope(seed)
