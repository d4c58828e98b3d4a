"""What the server sees in flight is never more than the limit."""

from __future__ import annotations

import anyio
import pytest
from anyio import from_thread, to_thread

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from programs import IMAGE
from promises.loops import Virtual
from support import described, session_on

FAULTS = {
    "calm": [],
    "replies are lost": [Fault(FaultKind.RESET_AFTER, probability=0.3)],
    "busy": [Fault(FaultKind.BUSY, probability=0.3, seconds=2)],
    "stalls": [Fault(FaultKind.STALL, probability=0.1)],
    "slow at times": [Fault(FaultKind.DELAY, probability=0.5, seconds=0, jitter=9)],
}


@pytest.mark.parametrize("faults", FAULTS, ids=str)
@pytest.mark.parametrize("limit", [1, 5, 32])
def test_operations_at_once_stay_within_one_limit(
    virtual: Virtual, faults: str, limit: int
) -> None:
    async def everything_at_once() -> None:
        async with MemoryTransport(faults=FaultPlan(FAULTS[faults])) as world:
            client = kaleden.AsyncSession(transport=world, concurrency=limit, settle=5)
            async with client as session, session.scope(grace=60) as scope:
                created = await scope.create("fits", IMAGE, replicas=40)
                async with anyio.create_task_group() as group:
                    for ask in (session.info, session.logs, session.events, session.renew):
                        group.start_soon(ask, [*created.ids, *(f"no{n}" for n in range(30))])
                    # Creates that are given up go on for a while, and count all the same.
                    with anyio.move_on_after(0.3):
                        await scope.create("more", IMAGE, replicas=40)
                    await session.destroy(created.ids[:20])
                assert world.max_in_flight <= limit

    try:
        virtual.run(everything_at_once)
    except kaleden.ScopeError:
        # A server that loses so much may keep a scope from its end; that is told.
        assert faults != "calm"


async def test_threads_share_the_limit_too() -> None:
    session, transport = session_on(described, concurrency=3)

    def ask(number: int) -> bool:
        keys = [f"id{number}-{each}" for each in range(25)]
        return from_thread.run(session.info, keys).ok

    async with session, anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(to_thread.run_sync, ask, number)
    assert 8 * 25 == len(transport.requests)
    assert 3 == transport.most_in_flight
