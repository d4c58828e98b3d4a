"""A call for one id during a call for ten thousand ids ends within limit + 2 service times."""

from __future__ import annotations

import anyio
import pytest

import kaleden
from kaleden._wire import Request, Response
from promises.loops import VirtualLoop
from support import data, session_id, session_object, session_on

SERVICE = 1.0  # seconds for one request


async def respond_after_service_time(request: Request) -> Response:
    await anyio.sleep(SERVICE)
    return data(session_object(session_id(request)))


@pytest.mark.parametrize("limit", [1, 8, 32])
@pytest.mark.parametrize("start_delay", [0.0, 0.5, 10.0, 10.9])
def test_small_call_does_not_wait_for_large_call(
    virtual: VirtualLoop, limit: int, start_delay: float
) -> None:
    async def measure() -> None:
        session, _ = session_on(respond_after_service_time, concurrency=limit)
        async with session, anyio.create_task_group() as group:
            group.start_soon(session.info, [f"id{number}" for number in range(10_000)])
            await anyio.sleep(start_delay)
            began = anyio.current_time()
            outcomes: kaleden.Outcomes[kaleden.SessionInfo] = await session.info("mine")
            group.cancel_scope.cancel()
            assert outcomes.ok
            assert anyio.current_time() - began <= (limit + 2) * SERVICE

    virtual.run(measure)
