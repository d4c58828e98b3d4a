"""A deadline of the caller holds, whatever the server does, and the last error is reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden import FailureKind
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE

GRACE = 5.0
IDS = [f"id{number}" for number in range(100)]

Call = Callable[[kaleden.AsyncSession], Awaitable[Any]]


async def read_a_stream(session: kaleden.AsyncSession) -> None:
    async with session.stream.logs(iter(IDS)) as results:
        async for _ in results:
            pass


async def follow(session: kaleden.AsyncSession) -> None:
    async with session.follow(IDS) as lines:
        async for _ in lines:
            pass


async def launch(session: kaleden.AsyncSession) -> None:
    async with session.scope(grace=GRACE) as scope:
        await scope.create("fits", IMAGE, replicas=10)
        await scope.wait()


# Each call, and the additional seconds that it may take to end the sessions it has launched.
CALLS: dict[str, tuple[Call, float]] = {
    "info": (lambda session: session.info(IDS), 0),
    "fetch": (lambda session: session.fetch(), 0),
    "destroy": (lambda session: session.destroy(IDS), 0),
    "wait": (lambda session: session.wait(IDS), 0),
    "stream": (read_a_stream, 0),
    "follow": (follow, 0),
    "create": (lambda session: session.create("fits", IMAGE, replicas=3), GRACE),
    "scope": (launch, GRACE),
    "run": (lambda session: session.run("fits", IMAGE, replicas=3, grace=GRACE), GRACE),
}
FAULTS = {
    "stalls": [Fault(FaultKind.STALL)],
    "done, and stalls": [Fault(FaultKind.STALL_AFTER)],
    "breaks": [Fault(FaultKind.RESET_BEFORE, probability=0.9)],
    "busy": [Fault(FaultKind.BUSY, seconds=7)],
}


@pytest.mark.parametrize("faults", FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_call_returns_by_the_deadline(
    virtual: VirtualLoop, count_trials: Callable[[int], None], name: str, faults: str
) -> None:
    call, extra = CALLS[name]
    deadlines = [0.01, 1.0, 20.0]

    async def program(deadline: float) -> None:
        async with (
            MemoryTransport(faults=FaultPlan(FAULTS[faults], seed=3), duration=1e6) as world,
            kaleden.AsyncSession(transport=world, create_grace=GRACE) as session,
        ):
            try:
                with anyio.fail_after(deadline):
                    await call(session)
            except (TimeoutError, kaleden.RequestError, kaleden.ScopeError):
                pass
            assert anyio.current_time() <= deadline + extra + 0.1

    for deadline in deadlines:
        virtual.run(program, deadline)
    count_trials(len(deadlines))


@pytest.mark.parametrize("retry_after", [5, 60, 100_000])
def test_back_off_beyond_the_deadline_is_not_started(
    virtual: VirtualLoop, retry_after: float
) -> None:
    async def program() -> None:
        plan = FaultPlan([Fault(FaultKind.BUSY, seconds=retry_after)])
        async with (
            MemoryTransport(faults=plan) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            with anyio.fail_after(4):
                outcomes = await session.info(IDS)
            assert anyio.current_time() < 1
            assert {FailureKind.UNAVAILABLE} == {each.kind for each in outcomes.failures.values()}
            assert len(IDS) == len(outcomes.failures)

    virtual.run(program)
