"""Retries are bounded: a server that always fails gets at most 1.2 n + 10 attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

import kaleden
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import VirtualLoop
from support import described, session_on, text


async def respond_busy(_: Request) -> Response:
    return text("temporarily unavailable", 503)


async def respond_overloaded(_: Request) -> Response:
    return text("slow down", 429, **{"retry-after": "1"})


async def break_connection(_: Request) -> Response:
    raise TransportError(kaleden.FailureKind.CONNECTION_LOST, "reset", sent=True)


async def refuse_connection(_: Request) -> Response:
    raise TransportError(kaleden.FailureKind.CONNECT_FAILED, "refused", sent=False)


RETRY = kaleden.RetryPolicy(seed=11)


async def check_attempts(respond: Callable[[Request], Awaitable[Response]], count: int) -> None:
    session, transport = session_on(respond, retry=RETRY)
    async with session, anyio.create_task_group() as group:
        for share in range(2):
            group.start_soon(session.info, [f"id{number}" for number in range(share, count, 2)])
    assert len(transport.requests) <= 1.2 * count + 10
    # Nearly the whole retry budget is used; otherwise the test would pass without any retry.
    assert len(transport.requests) >= 1.15 * count


@pytest.mark.parametrize("count", [1, 10, 1_000])
@pytest.mark.parametrize(
    "respond", [respond_busy, respond_overloaded, break_connection, refuse_connection]
)
def test_failing_server_gets_bounded_number_of_attempts(
    virtual: VirtualLoop, count: int, respond: Callable[[Request], Awaitable[Response]]
) -> None:
    virtual.run(check_attempts, respond, count)


@pytest.mark.slow
def test_attempts_are_bounded_for_many_requests(virtual: VirtualLoop) -> None:
    virtual.run(check_attempts, respond_busy, 20_000)


def test_healthy_server_gets_each_request_once(virtual: VirtualLoop) -> None:
    async def program() -> None:
        session, transport = session_on(described, retry=RETRY)
        async with session:
            assert (await session.info([f"id{number}" for number in range(1_000)])).ok
        assert 1_000 == len(transport.requests)

    virtual.run(program)
