"""All waits share one list per interval, and report a failure within one interval."""

from __future__ import annotations

import anyio
import pytest

pytest.importorskip("anycorn")

import kaleden
from kaleden._sessions._monitor._poller import JITTER, MAX_INTERVAL, MIN_INTERVAL
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE

LONGEST = MAX_INTERVAL * (1 + JITTER)


async def wait_with(sessions: int, waiters: int) -> tuple[float, int]:
    """Wait for the end of sessions in several tasks; return the seconds and the number of lists."""
    async with (
        MemoryTransport(duration=300.0) as world,
        kaleden.AsyncSession(transport=world) as session,
    ):
        created = await session.create("fits", IMAGE, replicas=sessions)
        before, began = world.requests.total(), anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(waiters):
                group.start_soon(session.wait, created.ids)
        lists = world.requests.total() - before
        return anyio.current_time() - began, lists


MANY_OF_BOTH = pytest.param(200, 50, marks=pytest.mark.slow)


@pytest.mark.parametrize(("sessions", "waiters"), [(1, 1), (200, 1), (1, 50), MANY_OF_BOTH])
def test_number_of_lists_does_not_depend_on_waiters(
    virtual: VirtualLoop, sessions: int, waiters: int
) -> None:
    seconds, lists = virtual.run(wait_with, sessions, waiters)
    shortest = MIN_INTERVAL * (1 - JITTER)
    # The bound is the same for all: each interval is half as long again as the one before it.
    assert lists <= 2 + seconds / (MAX_INTERVAL * (1 - JITTER)) + 3 * 8
    assert lists <= seconds / shortest


@pytest.mark.parametrize("faults", [[], [Fault(FaultKind.BUSY, "list", probability=0.3)]], ids=len)
def test_wrong_final_status_is_reported_within_one_interval(
    virtual: VirtualLoop, faults: list[Fault]
) -> None:
    failed_at = 100.0

    def fails(session: Session) -> bool:
        return session.spec.name.endswith("-2")

    async def wait() -> tuple[float, kaleden.Failure]:
        async with (
            MemoryTransport(
                start_delay=0, duration=failed_at, fails=fails, faults=FaultPlan(faults)
            ) as world,
            kaleden.AsyncSession(transport=world) as session,
        ):
            created = await session.create("fits", IMAGE, replicas=3)
            async with session.stream.wait(created.ids, "Succeeded") as results:
                async for outcome in results:
                    if isinstance(outcome, kaleden.Failure):
                        return anyio.current_time(), outcome
        raise AssertionError

    when, failure = virtual.run(wait)
    assert kaleden.FailureKind.WRONG_STATE is failure.kind
    failures_in_a_row = 1 if not faults else 4
    assert when <= failed_at + 1 + LONGEST * failures_in_a_row


def test_vanished_session_is_reported_by_second_list_without_it(virtual: VirtualLoop) -> None:
    async def wait() -> tuple[float, kaleden.Failure | kaleden.Success[kaleden.SessionInfo]]:
        async with (
            MemoryTransport(duration=1e6) as world,
            kaleden.AsyncSession(transport=world) as session,
            anyio.create_task_group() as group,
        ):
            created = await session.create("fits", IMAGE)

            async def vanish() -> None:
                await anyio.sleep(100)
                await session.destroy(created)

            group.start_soon(vanish)
            [outcome] = await session.wait(created.ids)
            when = anyio.current_time()
        return when, outcome

    when, outcome = virtual.run(wait)
    assert isinstance(outcome, kaleden.Failure)
    assert kaleden.FailureKind.VANISHED is outcome.kind
    assert when <= 101 + 2 * LONGEST
