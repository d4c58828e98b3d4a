"""Leaving a scope or a client takes a bounded time, even if the server does not respond."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE

STALLS = {
    "everything": [Fault(FaultKind.STALL)],
    "responses": [Fault(FaultKind.STALL_AFTER)],
    "deletes": [Fault(FaultKind.STALL, "destroy")],
    "lists": [Fault(FaultKind.STALL, "list")],
    "deletes and lists": [Fault(FaultKind.STALL, "destroy"), Fault(FaultKind.STALL, "list")],
}


@pytest.mark.parametrize("stalls", STALLS)
@pytest.mark.parametrize("grace", [1.0, 30.0])
def test_scope_exits_within_its_grace(
    virtual: VirtualLoop, count_trials: Callable[[int], None], stalls: str, grace: float
) -> None:
    cancel_times = [0.05, 0.31, 0.7, 5.0, 60.0]

    async def leave(cancel_time: float) -> float:
        async with MemoryTransport(faults=FaultPlan(STALLS[stalls]), duration=1e6) as world:
            async with kaleden.AsyncSession(transport=world) as session:
                scope = session.scope(grace=grace)
                with (
                    suppress(kaleden.ScopeError),
                    anyio.CancelScope(deadline=cancel_time) as cancelled,
                ):
                    async with scope:
                        await scope.create("fits", IMAGE, replicas=20)
                        await scope.wait()
                assert cancelled.cancel_called
                left = {each.id for each in world.sessions()}
                error = scope.error
                assert not left or error is not None
                assert session.statistics().limiter.in_flight == 0
                return anyio.current_time() - cancel_time

    for cancel_time in cancel_times:
        assert virtual.run(leave, cancel_time) <= grace + 0.1
    count_trials(len(cancel_times))


@pytest.mark.parametrize("stalls", STALLS)
def test_client_exits_at_once(virtual: VirtualLoop, stalls: str) -> None:
    async def leave() -> None:
        async with (
            MemoryTransport(faults=FaultPlan(STALLS[stalls])) as world,
            anyio.create_task_group() as group,
        ):
            async with kaleden.AsyncSession(transport=world) as session:
                for ask in (session.info, session.logs, session.destroy):
                    group.start_soon(ask, [f"id{number}" for number in range(100)])
                await anyio.sleep(3)
            assert anyio.current_time() <= 3 + 0.1
            group.cancel_scope.cancel()

    virtual.run(leave)
