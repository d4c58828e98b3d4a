"""Retry-After pauses the whole client: no task and no thread sends a request during the pause."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kaleden
from kaleden._wire import Request, Response
from promises.loops import VirtualLoop
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
@pytest.mark.parametrize("retry_after", [1, 30, 120])
def test_no_task_sends_during_the_pause(
    virtual: VirtualLoop, status: int, retry_after: int
) -> None:
    async def program() -> None:
        sent: list[float] = []
        busy_at: list[float] = []

        async def respond(request: Request) -> Response:
            sent.append(anyio.current_time())
            await anyio.sleep(LATENCY)
            if len(sent) > 40 and not busy_at:
                busy_at.append(anyio.current_time())
                return text("busy", status, **{"retry-after": str(retry_after)})
            return data(session_object(session_id(request)))

        session, _ = session_on(respond, concurrency=4)
        async with session, anyio.create_task_group() as group:
            for part in range(3):
                group.start_soon(session.info, [f"id{part}-{n}" for n in range(100)])
        [paused] = busy_at
        assert [] == [time for time in sent if paused < time < paused + retry_after]
        assert [] != [time for time in sent if time >= paused + retry_after]

    virtual.run(program)


def test_call_with_shorter_deadline_fails_at_start_of_pause(virtual: VirtualLoop) -> None:
    async def respond(request: Request) -> Response:
        await anyio.sleep(LATENCY)
        return text("busy", 503, **{"retry-after": "120"})

    async def program() -> None:
        session, transport = session_on(respond, concurrency=1)
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
    """A server that responds with a 503 once, and counts the requests before and after it."""

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        self.before = 0
        self.after = 0
        self.refused = False

    async def respond(self, request: Request) -> Response:
        await checkpoint()
        if self.refused:
            self.after += 1
        else:
            self.before += 1
            if self.before > 40:
                self.refused = True
                return text("busy", 503, **{"retry-after": str(self.retry_after)})
        return data(session_object(session_id(request)))


def submit_hundred_calls(
    session: kaleden.Session, pool: ThreadPoolExecutor
) -> list[Future[kaleden.Outcomes[kaleden.SessionInfo]]]:
    return [pool.submit(session.info, f"id{number}") for number in range(100)]


def check_all_wait(session: kaleden.Session) -> bool:
    """Return whether the client is paused, and the requests of all threads wait for its end."""
    limiter = session.statistics().limiter
    # The request with the 503 waits for its retry outside of the limiter.
    return limiter.paused > 0 and limiter.in_flight + limiter.waiting == THREADS - 1


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_no_thread_sends_during_the_pause(backend: Any) -> None:
    busy = Busy(retry_after=3600)
    retry = kaleden.RetryPolicy(total=10_000)
    session = kaleden.Session(
        transport=FakeTransport(busy.respond), backend=backend, concurrency=1, retry=retry
    )
    with ThreadPoolExecutor(THREADS) as pool:
        calls = submit_hundred_calls(session, pool)
        try:
            poll_until(lambda: check_all_wait(session))
        finally:
            session.close()
    assert 40 == sum(call.exception() is None for call in calls)
    assert 0 == busy.after


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_threads_continue_after_the_pause(backend: Any) -> None:
    busy = Busy(retry_after=0.01)
    transport = FakeTransport(busy.respond)
    with (
        kaleden.Session(transport=transport, backend=backend, concurrency=1) as session,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        assert all(call.result().ok for call in submit_hundred_calls(session, pool))
    assert (41, 60) == (busy.before, busy.after)
