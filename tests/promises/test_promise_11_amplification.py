"""Retries cannot amplify: a server that always fails gets at most 1.2 N + 10 attempts."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from kaleden import FailureKind, RetryPolicy
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import described, session_on, stalled, text

POLICY = RetryPolicy(seed=11)


async def busy(_: Request) -> Response:
    return text("come back later", 503)


async def asks_to_wait(_: Request) -> Response:
    return text("come back later", 429, **{"retry-after": "1"})


async def bad_gateway(_: Request) -> Response:
    return text("", 502)


async def refused(_: Request) -> Response:
    raise TransportError(FailureKind.CONNECT_FAILED, "nobody is there", sent=False)


FAILING = [busy, asks_to_wait, bad_gateway, refused, stalled]
MANY = pytest.param(100_000, marks=pytest.mark.slow)


@pytest.mark.parametrize("reply", FAILING, ids=lambda reply: reply.__name__)
@pytest.mark.parametrize("count", [1, 10, 1_000])
def test_a_server_that_always_fails_is_spared(
    virtual: Virtual, reply: Callable[[Request], object], count: int
) -> None:
    virtual.run(fail, reply, count)


@pytest.mark.parametrize("count", [MANY])
def test_a_great_many_requests_are_no_exception(virtual: Virtual, count: int) -> None:
    virtual.run(fail, busy, count)


async def fail(reply: Callable[[Request], object], count: int) -> None:
    session, transport = session_on(reply, retry=POLICY)  # type: ignore[arg-type]
    async with session:
        outcomes = await session.info(f"id{number}" for number in range(count))
        assert count == len(outcomes.failures)
        assert len(transport.requests) == sum(outcome.attempts for outcome in outcomes)
        assert len(transport.requests) <= 1.2 * count + 10
        # What may be spent is spent, or this would hold for a client that never tries again.
        assert len(transport.requests) >= min(4 * count, int(1.2 * count))


def test_calls_at_once_spend_from_one_budget(virtual: Virtual) -> None:
    async def ask() -> None:
        session, transport = session_on(busy, retry=POLICY)
        async with session, anyio.create_task_group() as group:
            for number in range(50):
                for method in (session.info, session.logs, session.renew):
                    group.start_soon(method, [f"{number}-a", f"{number}-b"])
        assert len(transport.requests) <= 1.2 * 300 + 10

    virtual.run(ask)


def test_a_healthy_server_gets_no_repetition(virtual: Virtual) -> None:
    async def ask() -> None:
        session, transport = session_on(described, retry=POLICY)
        async with session:
            assert (await session.info([f"id{number}" for number in range(1000)])).ok
            assert 0 == session.statistics().retries.repeated
        assert 1000 == len(transport.requests)

    virtual.run(ask)
