"""Retry-After pauses the whole client: no worker and no thread asks before its time."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kaleden
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import (
    PLAIN_BACKENDS,
    FakeTransport,
    data,
    poll_until,
    session_id,
    session_object,
    session_on,
    text,
)

LATENCY = 0.1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked", [1, 30, 120])
def test_no_worker_asks_before_its_time(virtual: Virtual, status: int, asked: int) -> None:
    async def program() -> None:
        sent: list[float] = []
        busy_at: list[float] = []

        async def reply(request: Request) -> Response:
            sent.append(anyio.current_time())
            await anyio.sleep(LATENCY)
            if len(sent) > 40 and not busy_at:
                busy_at.append(anyio.current_time())
                return text("busy", status, **{"retry-after": str(asked)})
            return data(session_object(session_id(request)))

        session, _ = session_on(reply, concurrency=4)
        async with session, anyio.create_task_group() as group:
            for part in range(3):
                group.start_soon(session.info, [f"id{part}-{n}" for n in range(100)])
        [paused] = busy_at
        assert [] == [moment for moment in sent if paused < moment < paused + asked]
        assert [] != [moment for moment in sent if moment >= paused + asked]

    virtual.run(program)


def test_who_has_less_time_is_told_when_the_pause_begins(virtual: Virtual) -> None:
    async def reply(request: Request) -> Response:
        await anyio.sleep(LATENCY)
        return text("busy", 503, **{"retry-after": "120"})

    async def program() -> None:
        session, transport = session_on(reply, concurrency=1)
        began = anyio.current_time()
        async with session, anyio.create_task_group() as group:
            group.start_soon(session.info, "first")
            while not transport.requests:
                await checkpoint()
            with anyio.fail_after(60):
                outcomes = await session.info(["a", "b"])
            assert began + LATENCY == pytest.approx(anyio.current_time())
            assert ["busy", "busy"] == [each.message for each in outcomes.failures.values()]
            assert not any(each.sent for each in outcomes.failures.values())
        assert 1 == len(transport.requests)

    virtual.run(program)


THREADS = 8


class Busy:
    """A server that refuses one request, and after that counts those that come all the same."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        self.before = 0
        self.after = 0
        self.refused = False

    async def reply(self, request: Request) -> Response:
        await checkpoint()
        if self.refused:
            self.after += 1
        else:
            self.before += 1
            if self.before > 40:
                self.refused = True
                return text("busy", 503, **{"retry-after": str(self.retry_after)})
        return data(session_object(session_id(request)))


def ask_for_a_hundred(
    session: kaleden.Session, pool: ThreadPoolExecutor
) -> list[Future[kaleden.Outcomes[kaleden.SessionInfo]]]:
    return [pool.submit(session.info, f"id{number}") for number in range(100)]


def all_wait(session: kaleden.Session) -> bool:
    """Return whether the client is paused, and the request of each thread waits for its end."""
    gate = session.statistics().limiter
    # The request that was refused waits for its next attempt outside the gate.
    return gate.paused > 0 and gate.in_flight + gate.waiting == THREADS - 1


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_no_thread_asks_before_its_time(backend: Any) -> None:
    busy = Busy(retry_after=3600)
    retry = kaleden.RetryPolicy(total=10_000)
    session = kaleden.Session(
        transport=FakeTransport(busy.reply), backend=backend, concurrency=1, retry=retry
    )
    with ThreadPoolExecutor(THREADS) as pool:
        calls = ask_for_a_hundred(session, pool)
        try:
            poll_until(lambda: all_wait(session))
        finally:
            session.close()
    assert 40 == sum(call.exception() is None for call in calls)
    assert 0 == busy.after


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_threads_go_on_after_the_pause(backend: Any) -> None:
    busy = Busy(retry_after=0.01)
    transport = FakeTransport(busy.reply)
    with (
        kaleden.Session(transport=transport, backend=backend, concurrency=1) as session,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        assert all(call.result().ok for call in ask_for_a_hundred(session, pool))
    assert (41, 60) == (busy.before, busy.after)
