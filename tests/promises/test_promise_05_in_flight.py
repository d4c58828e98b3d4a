"""The number of requests in flight at the server never exceeds the limit."""

from __future__ import annotations

import anyio
import pytest
from anyio import from_thread, to_thread

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE, described, session_on

FAULTS = {
    "calm": [],
    "responses are lost": [Fault(FaultKind.RESET_AFTER, probability=0.3)],
    "busy": [Fault(FaultKind.BUSY, probability=0.3, seconds=2)],
    "stalls": [Fault(FaultKind.STALL, probability=0.1)],
    "slow at times": [Fault(FaultKind.DELAY, probability=0.5, seconds=0, jitter=9)],
}


@pytest.mark.parametrize("faults", FAULTS, ids=str)
@pytest.mark.parametrize("limit", [1, 5, 32])
def test_concurrent_operations_share_one_limit(
    virtual: VirtualLoop, faults: str, limit: int
) -> None:
    async def run_all_operations() -> None:
        async with MemoryTransport(faults=FaultPlan(FAULTS[faults])) as world:
            client = kaleden.AsyncSession(transport=world, concurrency=limit, settle=5)
            async with client as session, session.scope(grace=60) as scope:
                created = await scope.create("fits", IMAGE, replicas=40)
                async with anyio.create_task_group() as group:
                    for ask in (session.info, session.logs, session.events, session.renew):
                        group.start_soon(ask, [*created.ids, *(f"no{n}" for n in range(30))])
                    # Cancelled creates stay in flight for a while, and count as well.
                    with anyio.move_on_after(0.3):
                        await scope.create("more", IMAGE, replicas=40)
                    await session.destroy(created.ids[:20])
                assert world.max_in_flight <= limit

    try:
        virtual.run(run_all_operations)
    except kaleden.ScopeError:
        # With so many faults, a scope may fail to end its sessions, and raises this.
        assert faults != "calm"


async def test_threads_share_the_limit() -> None:
    session, transport = session_on(described, concurrency=3)

    def ask(number: int) -> bool:
        keys = [f"id{number}-{each}" for each in range(25)]
        return from_thread.run(session.info, keys).ok

    async with session, anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(to_thread.run_sync, ask, number)
    assert 8 * 25 == len(transport.requests)
    assert 3 == transport.most_in_flight
