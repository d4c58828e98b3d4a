"""Retry-After pauses the whole client: no worker and no thread asks before its time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
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


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_no_thread_asks_before_its_time(backend: Any) -> None:
    asked = 0.4
    sent: list[float] = []
    busy_at: list[float] = []

    async def reply(request: Request) -> Response:
        sent.append(time.monotonic())
        await anyio.sleep(0.001)
        if len(sent) > 40 and not busy_at:
            # Taken before the client hears of it.
            busy_at.append(time.monotonic())
            return text("busy", 503, **{"retry-after": str(asked)})
        return data(session_object(session_id(request)))

    with (
        kaleden.Session(transport=FakeTransport(reply), backend=backend, concurrency=1) as session,
        ThreadPoolExecutor(8) as pool,
    ):
        told = list(pool.map(session.info, [f"id{number}" for number in range(100)]))
    assert all(outcomes.ok for outcomes in told)
    [paused] = busy_at
    assert [] == [moment for moment in sent if paused < moment < paused + asked]
