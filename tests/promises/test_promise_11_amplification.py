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


@pytest.mark.parametrize("count", [1, 10, 1_000])
@pytest.mark.parametrize("answer", [busy, overloaded, broken, refused])
def test_a_server_that_always_fails_gets_a_fifth_more_and_ten(
    virtual: Virtual, count: int, answer: Callable[[Request], Awaitable[Response]]
) -> None:
    async def program() -> None:
        session, transport = session_on(answer)
        async with session, anyio.create_task_group() as group:
            for share in range(2):
                ids = [f"id{number}" for number in range(share, count, 2)]
                group.start_soon(session.info, ids)
        assert count <= len(transport.requests) <= 1.2 * count + 10

    virtual.run(program)


def test_a_healthy_server_gets_each_request_once(virtual: Virtual) -> None:
    async def program() -> None:
        session, transport = session_on(described)
        async with session:
            assert (await session.info([f"id{number}" for number in range(1_000)])).ok
        assert 1_000 == len(transport.requests)

    virtual.run(program)
