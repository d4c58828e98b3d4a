"""A call for one id beside a call for ten thousand ends within limit + 2 service times."""

from __future__ import annotations

import anyio
import pytest

import kaleden
from kaleden._wire import Request, Response
from promises.loops import Virtual
from support import data, session_id, session_object, session_on

SERVICE = 1.0  # seconds for one request


async def served(request: Request) -> Response:
    await anyio.sleep(SERVICE)
    return data(session_object(session_id(request)))


@pytest.mark.parametrize("limit", [1, 8, 32])
@pytest.mark.parametrize("beside", [0.0, 0.5, 10.0, 10.9])
def test_a_small_call_does_not_wait_for_a_huge_one(
    virtual: Virtual, limit: int, beside: float
) -> None:
    async def measure() -> None:
        session, _ = session_on(served, concurrency=limit)
        async with session, anyio.create_task_group() as group:
            group.start_soon(session.info, [f"id{number}" for number in range(10_000)])
            await anyio.sleep(beside)
            began = anyio.current_time()
            outcomes: kaleden.Outcomes[kaleden.SessionInfo] = await session.info("mine")
            group.cancel_scope.cancel()
            assert outcomes.ok
            assert anyio.current_time() - began <= (limit + 2) * SERVICE

    virtual.run(measure)
