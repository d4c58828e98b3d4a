"""Repetitions cannot amplify: a server that always fails gets at most 1.2 n + 10 attempts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

import kaleden
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import described, session_on, text


async def busy(_: Request) -> Response:
    return text("temporarily unavailable", 503)


async def overloaded(_: Request) -> Response:
    return text("slow down", 429, **{"retry-after": "1"})


async def broken(_: Request) -> Response:
    raise TransportError(kaleden.FailureKind.CONNECTION_LOST, "reset", sent=True)


async def refused(_: Request) -> Response:
    raise TransportError(kaleden.FailureKind.CONNECT_FAILED, "refused", sent=False)


RETRY = kaleden.RetryPolicy(seed=11)


async def fail(answer: Callable[[Request], Awaitable[Response]], count: int) -> None:
    session, transport = session_on(answer, retry=RETRY)
    async with session, anyio.create_task_group() as group:
        for share in range(2):
            group.start_soon(session.info, [f"id{number}" for number in range(share, count, 2)])
    assert len(transport.requests) <= 1.2 * count + 10
    # Nearly all that may be spent is spent, or this would hold if nothing were tried again.
    assert len(transport.requests) >= 1.15 * count


@pytest.mark.parametrize("count", [1, 10, 1_000])
@pytest.mark.parametrize("answer", [busy, overloaded, broken, refused])
def test_a_server_that_always_fails_gets_a_fifth_more_and_ten(
    virtual: Virtual, count: int, answer: Callable[[Request], Awaitable[Response]]
) -> None:
    virtual.run(fail, answer, count)


@pytest.mark.slow
def test_a_great_many_requests_are_no_exception(virtual: Virtual) -> None:
    virtual.run(fail, busy, 20_000)


def test_a_healthy_server_gets_each_request_once(virtual: Virtual) -> None:
    async def program() -> None:
        session, transport = session_on(described, retry=RETRY)
        async with session:
            assert (await session.info([f"id{number}" for number in range(1_000)])).ok
        assert 1_000 == len(transport.requests)

    virtual.run(program)
